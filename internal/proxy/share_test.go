package proxy

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestRateLimitByHeader(t *testing.T) {
	k := start(t, setup{config: "[rate_limit]\nrequests_per_second = 0.001\nburst = 1\nkey = \"header:X-Team\"\n"})
	c := k.dial()
	c.send(get("/", "X-Team: blue")).answer().ok(k)
	c.send(get("/", "x-team: green")).answer().ok(k)
	a := c.send(get("/", "X-Team: blue")).answer()
	a.problem(k, fault.RateLimited)
	if !strings.Contains(a.text, "header:X-Team") {
		t.Errorf("the answer does not name the key: %s", a.text)
	}
	c.send(get("/")).answer().ok(k) // those without the field share one bucket
	c.send(get("/")).answer().problem(k, fault.RateLimited)
}

// Which of two values an upstream goes by is not known.
func TestRateLimitByHeaderWantsOneValue(t *testing.T) {
	k := start(t, setup{config: "[rate_limit]\nrequests_per_second = 0.001\nburst = 1\nkey = \"header:X-Api-Key\"\n"})
	for _, second := range []string{"X-Api-Key: fixed", "x-api-key: fixed", "X_Api_Key: fixed", "X-Api.Key: fixed"} {
		a := k.dial().send(get("/", "X-Api-Key: random", second)).answer()
		a.problem(k, fault.BadRequest)
		if !strings.Contains(a.text, "X-Api-Key is there more than once") {
			t.Errorf("with %q: %s", second, a.text)
		}
	}
	k.dial().send(get("/", "X-Api-Key: random")).answer().ok(k)
}

// All addresses of this host are one caller, and so is a network of IPv6 that one customer has.
func TestWhoHasOneShare(t *testing.T) {
	for _, c := range []struct {
		remote, local string
		same          string // an address that has the same share
		other         string // and one that has not; "": all have
	}{
		{"127.0.0.1", "127.0.0.1", "127.0.0.2", ""},
		{"127.0.0.9", "127.0.0.1", "::1", ""},
		{"::ffff:127.0.0.3", "::ffff:127.0.0.1", "127.0.0.1", ""},
		{"192.0.2.1", "192.0.2.1", "127.0.0.1", ""},
		{"192.0.2.7", "192.0.2.1", "192.0.2.7", "192.0.2.8"},
		{"2001:db8:1:2::7", "2001:db8::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::7"},
	} {
		share := func(remote, local string) string {
			return string(shareOf(net.ParseIP(remote), isHere(net.ParseIP(remote), net.ParseIP(local))))
		}
		mine := share(c.remote, c.local)
		if got := share(c.same, c.local); got != mine {
			t.Errorf("%s has the share %q, and %s %q", c.remote, mine, c.same, got)
		}
		if c.other != "" && share(c.other, c.local) == mine {
			t.Errorf("%s and %s share %q", c.remote, c.other, mine)
		}
	}
}

func TestRateLimitByAddress(t *testing.T) {
	k := start(t, setup{config: "[rate_limit]\nrequests_per_second = 0.001\nburst = 1\nkey = \"ip\"\n"})
	k.dial().send(get("/")).answer().ok(k)
	k.dial().send(get("/")).answer().problem(k, fault.RateLimited)
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}} // which is this host, too
	c, err := other.Dial("tcp", k.address)
	k.must(err)
	k.must(c.SetDeadline(time.Now().Add(patience)))
	(&caller{Conn: c, k: k, r: bufio.NewReader(c)}).send(get("/")).answer().problem(k, fault.RateLimited)
	_ = c.Close()
}

func TestRouteHasALimitOfItsOwn(t *testing.T) {
	k := start(t, setup{config: `
[[route]]
path_prefix = "/slow"
upstream = "default"
rate_limit = { requests_per_second = 0.001, burst = 1 }
[[route]]
upstream = "default"
`})
	c := k.dial()
	c.send(get("/slow")).answer()
	a := c.send(get("/slow")).answer()
	a.problem(k, fault.RateLimited)
	if !strings.Contains(a.text, "route[1].rate_limit") {
		t.Errorf("the answer does not say which limit it was: %s", a.text)
	}
	c.send(get("/")).answer().ok(k)
}

func TestShareOfConnectionsPerCaller(t *testing.T) {
	k := start(t, setup{config: "[listener.http]\naddress = \"127.0.0.1:0\"\nmax_connections_per_caller = 1\n"})
	first := k.dial()
	first.send(get("/")).answer().ok(k)
	a := k.dial().answer()
	a.problem(k, fault.ConnectionLimit)
	if !strings.Contains(a.text, "listener.http.max_connections_per_caller") {
		t.Errorf("the answer does not say which limit it was: %s", a.text)
	}
	_ = first.Close()
	k.until("there is room again", func() bool { return k.server.Stats().ActiveConnections == 0 })
	k.dial().send(get("/")).answer().ok(k)
}
