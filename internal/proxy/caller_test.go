package proxy

import (
	"bufio"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	callers "github.com/mtls-proxy/mtls-proxy/internal/caller"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// connectAs is connect by another user: a thread becomes that user, and ends.
func (k *kit) connectAs(uid int, network, address string) *caller {
	k.Helper()
	if os.Getuid() != 0 {
		k.Skip("only root can be somebody else")
	}
	if network == "unix" {
		k.must(os.Chmod(address, 0o777))
		for dir := filepath.Dir(address); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			k.must(os.Chmod(dir, 0o755))
		}
	}
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- result{nil, errno}
			return
		}
		c, err := net.Dial(network, address)
		done <- result{c, err}
	}()
	r := <-done
	k.must(r.err)
	k.Cleanup(func() { _ = r.c.Close() })
	k.must(r.c.SetDeadline(time.Now().Add(patience)))
	return &caller{Conn: r.c, k: k, r: bufio.NewReader(r.c)}
}

const byUser = "[rate_limit]\nrequests_per_second = 0.001\nburst = 1\nkey = \"user\"\n"

func TestRateLimitByUser(t *testing.T) {
	k := start(t, setup{config: byUser})
	path := k.unix()
	k.dial().send(get("/")).answer().ok(k)
	a := k.connect("unix", path).send(get("/")).answer().problem(k, fault.RateLimited) // whichever way they come
	if !strings.Contains(a.text, `\"user\"`) {
		t.Errorf("the answer does not name the key: %s", a.text)
	}
	k.dial().send(get("/")).answer().problem(k, fault.RateLimited)
	k.connectAs(4711, "tcp", k.address).send(get("/")).answer().ok(k)
	k.connectAs(4711, "unix", path).send(get("/")).answer().problem(k, fault.RateLimited)
	k.connectAs(4712, "unix", path).send(get("/")).answer().ok(k)
}

// leave has a caller connect, say something and leave before it is accepted, so that nobody can say who it was.
func (k *kit) leave(text string) {
	k.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	k.must(err)
	_ = k.connect("tcp", ln.Addr().String()).send(text).Close()
	k.serve("http", ln)
}

func TestUnknownCallersShareALimitOfTheirOwn(t *testing.T) {
	for _, name := range []string{"user", "unit"} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: strings.Replace(byUser, "user", name, 1)})
			unknown := func() float64 {
				return k.metric(`mtls_proxy_unknown_callers_total{fact="` + name + `",listener="http"}`)
			}
			refused := func() float64 { return k.metric(`mtls_proxy_rate_limited_total{key="` + name + `"}`) }
			k.leave(get("/"))
			k.until("one was unknown", func() bool { return unknown() == 1 && k.server.Stats().ActiveConnections == 0 })
			if n := refused(); n != 0 {
				t.Fatalf("%v were refused", n)
			}
			k.leave(get("/"))
			k.until("another was refused", func() bool { return refused() == 1 })
			if name == "user" { // the unit of the tests may be unknown, too
				k.dial().send(get("/")).answer().ok(k)
			}
			if n := unknown(); n != 2 {
				t.Errorf("%v callers counted as unknown, want 2", n)
			}
		})
	}
}

func TestCallersAreLookedUpOnlyWhenALimitAsks(t *testing.T) {
	byRoute := "[[route]]\nupstream = \"default\"\nrate_limit = { requests_per_second = 1000, key = \"unit\" }\n"
	for name, c := range map[string]struct {
		config string
		want   callers.Facts
	}{
		"all":           {"[rate_limit]\nkey = \"all\"\n", 0},
		"ip":            {"[rate_limit]\nkey = \"ip\"\n", 0},
		"user":          {"[rate_limit]\nkey = \"user\"\n", callers.User},
		"user, but off": {"[rate_limit]\nrequests_per_second = 0\nkey = \"user\"\n", 0},
		"unit":          {"[rate_limit]\nkey = \"unit\"\n", callers.Unit},
		"of a route":    {"[rate_limit]\nkey = \"user\"\n" + byRoute, callers.User | callers.Unit},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: c.config})
			k.dial().send(get("/")).answer().ok(k)
			k.any("asked for what it should", func(x *session) bool { return x.party.asked == c.want })
		})
	}
}

func TestALimitThatComesByReloadKnowsWhoIsThere(t *testing.T) {
	k := start(t, setup{})
	c, other := k.dial(), k.connectAs(4711, "tcp", k.address)
	for range 3 {
		c.send(get("/")).answer().ok(k)
		other.send(get("/")).answer().ok(k)
	}
	k.reload(byUser)
	c.send(get("/")).answer().ok(k)
	c.send(get("/")).answer().problem(k, fault.RateLimited)
	other.send(get("/")).answer().ok(k)
	other.send(get("/")).answer().problem(k, fault.RateLimited)
	if n := k.metric(`mtls_proxy_unknown_callers_total{fact="user",listener="http"}`); n != 0 {
		t.Errorf("%v callers are unknown", n)
	}
}

func TestShareOfConnectionsPerUser(t *testing.T) {
	k := start(t, setup{config: "[listener.http]\naddress = \"127.0.0.1:0\"\nmax_connections_per_caller = 1\n"})
	path := k.unix()
	k.connect("unix", path).send(get("/")).answer().ok(k)
	k.connect("unix", path).answer().problem(k, fault.ConnectionLimit)
	k.connectAs(4711, "unix", path).send(get("/")).answer().ok(k)
	k.connectAs(4711, "unix", path).answer().problem(k, fault.ConnectionLimit)
}

func TestTheCallerIsInTheRecord(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config string
		call   func(k *kit) *caller
		want   func(c *caller) string
	}{
		"Unix":                      {"", func(k *kit) *caller { return k.connect("unix", k.unix()) }, func(*caller) string { return "user " + me.Username }},
		"Unix, a user with no name": {"", func(k *kit) *caller { return k.connectAs(4711, "unix", k.unix()) }, func(*caller) string { return "uid 4711" }},
		"TCP":                       {"", (*kit).dial, func(c *caller) string { return c.LocalAddr().String() }},
		"TCP, by user":              {byUser, (*kit).dial, func(c *caller) string { return c.LocalAddr().String() + ", user " + me.Username }},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: "[log]\naccess = \"all\"\n" + c.config})
			from := c.call(k)
			from.send(get("/")).answer().ok(k)
			var list []record
			k.until("a record", func() bool { list = k.records(); return len(list) > 0 })
			if got, want := list[0]["caller"], c.want(from); got != want {
				t.Errorf("caller = %v, want %q", got, want)
			}
			if strconv.Itoa(os.Getuid()) != me.Uid {
				t.Errorf("the tests run as %v", me)
			}
		})
	}
}

func TestLimitsGoByTheirKey(t *testing.T) {
	x := &session{address: "127.0.0.1", share: []byte("127.0.0.1")}
	x.party.User, x.party.Unit = []byte("uid:7"), []byte("billing.service")
	unix := &session{share: []byte("uid:7")}
	for _, c := range []struct {
		x    *session
		by   snapshot.RateKey
		want string
	}{
		{x, snapshot.RateAll, ""},
		{x, snapshot.RateIP, "127.0.0.1"},
		{x, snapshot.RateUser, "uid:7"},
		{x, snapshot.RateUnit, "billing.service"},
		{unix, snapshot.RateIP, ""},
		{unix, snapshot.RateUser, ""},
		{unix, snapshot.RateUnit, ""},
	} {
		if got, f := c.x.rateKey(&snapshot.Rate{By: c.by}); f != nil || string(got) != c.want {
			t.Errorf("rateKey of %q by %d = %q, want %q", c.x.address, c.by, got, c.want)
		}
	}
}
