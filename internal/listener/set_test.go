package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prepare fails the test unless the change is possible.
func prepare(t *testing.T, s *Set, specs ...Spec) *Change {
	t.Helper()
	c, err := s.Prepare(specs)
	if err != nil {
		t.Fatalf("Prepare(%v) = %v", specs, err)
	}
	return c
}

// newSet returns a Set with specs in service.
func newSet(t *testing.T, specs ...Spec) *Set {
	t.Helper()
	s := NewSet(nil)
	prepare(t, s, specs...).Commit()
	t.Cleanup(func() { s.Close() })
	return s
}

func tcp(name string, addresses ...string) Spec { return Spec{Name: name, Addresses: addresses} }

func inherit(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// free returns an address that nobody has right now.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// answers checks that who connects to sock's address is accepted by it.
func answers(t *testing.T, sock *Socket) {
	t.Helper()
	c, err := net.Dial(sock.Addr().Network(), sock.Addr().String())
	if err != nil {
		t.Fatalf("dial %s: %v", sock.Address, err)
	}
	defer c.Close()
	if err := sock.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	accepted, err := sock.Accept()
	if err != nil {
		t.Fatalf("accept on %s: %v", sock.Address, err)
	}
	accepted.Close()
}

func TestSetKeepsWhatStaysAndReturnsWhatLeft(t *testing.T) {
	a, b, path := free(t), free(t), "unix:"+filepath.Join(t.TempDir(), "x.sock")
	s := NewSet(nil)
	defer s.Close()
	first, left := prepare(t, s, tcp("http", a, path), tcp("old", "127.0.0.1:0")).Commit()
	if len(left) != 0 || len(first["http"]) != 2 || len(first["old"]) != 1 {
		t.Fatalf("first Commit() = %v, %v", first, left)
	}
	second, left := prepare(t, s, tcp("http", path, a), tcp("new", b)).Commit()
	if second["http"][0] != first["http"][1] || second["http"][1] != first["http"][0] {
		t.Error("sockets whose addresses stayed were replaced")
	}
	if len(left) != 1 || left[0] != first["old"][0] {
		t.Fatalf("left = %v; want the socket of \"old\"", left)
	}
	answers(t, left[0]) // until its owner closes it
	if err := left[0].Close(); err != nil {
		t.Error(err)
	}
	for _, sock := range s.Sockets() {
		answers(t, sock)
	}
	if got := len(s.Sockets()); got != 3 {
		t.Errorf("%d sockets are in service; want 3", got)
	}
}

func TestPrepareNamesEveryAddressThatCannotBeHadAndKeepsNone(t *testing.T) {
	taken, other, wanted := inherit(t, "127.0.0.1:0"), inherit(t, "127.0.0.1:0"), free(t)
	s := NewSet(nil)
	_, err := s.Prepare([]Spec{tcp("http", wanted, taken.Addr().String()), tcp("api", other.Addr().String())})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("Prepare() = %v; want EADDRINUSE", err)
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, part := range []string{
		`listener "http": bind ` + taken.Addr().String() + ": address already in use; `ss -ltnp 'sport = :" + port + "'` shows who has it",
		`listener "api": bind ` + other.Addr().String(),
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("Prepare() = %v\nwant it to contain %s", err, part)
		}
	}
	ln, err := net.Listen("tcp", wanted)
	if err != nil {
		t.Fatalf("the address that could be had is still bound: %v", err)
	}
	ln.Close()
	prepare(t, s).Abort() // and another Change can begin
}

func TestPrepareSaysWhenWeAreInOurOwnWay(t *testing.T) {
	a := free(t)
	s := newSet(t, tcp("http", a))
	_, port, _ := net.SplitHostPort(a)
	_, err := s.Prepare([]Spec{tcp("wide", "0.0.0.0:"+port)})
	if want := `listener "http" of this service has ` + a; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Prepare() = %v; want it to contain %s", err, want)
	}
	answers(t, s.Sockets()[0])
}

func TestAbortLeavesEverythingAsItWas(t *testing.T) {
	a, b := free(t), free(t)
	path := filepath.Join(t.TempDir(), "x.sock")
	s := newSet(t, tcp("http", a))
	prepare(t, s, tcp("other", a, b, "unix:"+path)).Abort()
	if _, err := net.Dial("tcp", b); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial %s after Abort: %v; want it refused", b, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path of an aborted socket: %v; want none", err)
	}
	if socks := s.Sockets(); len(socks) != 1 || socks[0].Name != "http" {
		t.Fatalf("in service after Abort: %v", socks)
	}
	answers(t, s.Sockets()[0])
}

func TestOneChangeAtATime(t *testing.T) {
	s := NewSet(nil)
	c := prepare(t, s)
	if _, err := s.Prepare(nil); err == nil {
		t.Error("a second Prepare began while the first was not finished")
	}
	c.Commit()
	prepare(t, s).Abort()
}

func TestAddressGoesToAnotherListenerWithoutAGap(t *testing.T) {
	a, path := free(t), filepath.Join(t.TempDir(), "x.sock")
	s := newSet(t, tcp("before", a, "unix:"+path))
	now, left := prepare(t, s, tcp("after", a, "unix:"+path)).Commit()
	if len(left) != 2 {
		t.Fatalf("left = %v; want both sockets of \"before\"", left)
	}
	for _, old := range left {
		if err := old.SetDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := old.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("accept on the stopped socket %s: %v; want a deadline", old.Address, err)
		}
		if err := old.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, sock := range now["after"] {
		answers(t, sock)
	}
}

func TestInheritedSocketsReplaceAddresses(t *testing.T) {
	v4, v6 := inherit(t, "127.0.0.1:0"), inherit(t, "[::1]:0")
	unused := free(t)
	s := NewSet(map[string][]net.Listener{"http": {v4, v6}})
	c := prepare(t, s, tcp("http", v4.Addr().String(), unused))
	if w := c.Warnings(); len(w) != 1 || !strings.Contains(w[0], unused+" has no effect") {
		t.Errorf("Warnings() = %q; want one about %s", w, unused)
	}
	now, _ := c.Commit()
	if len(now["http"]) != 2 || now["http"][1].Address != v6.Addr().String() || !now["http"][0].Inherited {
		t.Fatalf("http = %v; want both inherited sockets", now["http"])
	}
	again, left := prepare(t, s, tcp("http", v4.Addr().String())).Commit()
	if again["http"][0] != now["http"][0] || len(left) > 0 {
		t.Errorf("the next generation has %v and left %v; want the same sockets", again["http"], left)
	}
	if err := errors.Join(now["http"][0].Close(), s.Close()); err != nil {
		t.Error(err)
	}
	answers(t, now["http"][0]) // open all the same
}

func TestInheritedSocketThatNoListenerUsesIsAnError(t *testing.T) {
	web := inherit(t, "127.0.0.1:0")
	s := NewSet(map[string][]net.Listener{"web": {web}})
	_, err := s.Prepare([]Spec{tcp("http", "127.0.0.1:0"), tcp("api", "127.0.0.1:0")})
	want := `socket "web" of the service manager (` + web.Addr().String() + `): no listener has that name; configured: "http", "api"; ` +
		"add [listener.web] to the configuration, or set FileDescriptorName= in the socket unit to a listener's name"
	if err == nil || err.Error() != want {
		t.Errorf("Prepare() = %v\nwant %s", err, want)
	}
}

func TestPrepareRefusesSpecsThatCannotBeMeant(t *testing.T) {
	for _, tt := range []struct {
		name  string
		specs []Spec
		want  string
	}{
		{"an address twice", []Spec{tcp("a", "127.0.0.1:81"), tcp("b", "127.0.0.1:81")}, `listener "b": 127.0.0.1:81 is an address of listener "a" already`},
		{"a name twice", []Spec{tcp("a", "127.0.0.1:0"), tcp("a", "127.0.0.1:0")}, `listener "a": it is there twice`},
		{"no address", []Spec{tcp("a")}, `listener "a": it has no address`},
		{"a relative path", []Spec{tcp("a", "unix:x.sock")}, "absolute"},
		{"an abstract name", []Spec{tcp("a", "unix:@x")}, "absolute"},
		{"a long path", []Spec{tcp("a", "unix:/"+strings.Repeat("x", 200))}, "the kernel takes 107"},
		{"a name of DNS", []Spec{tcp("a", "example.net:80")}, "none of"},
		{"no port", []Spec{tcp("a", "127.0.0.1")}, "none of"},
		{"a port that is none", []Spec{tcp("a", "127.0.0.1:99999")}, "none of"},
		{"nothing", []Spec{tcp("a", "")}, "none of"},
		{"an unknown group", []Spec{{Name: "a", Addresses: []string{"unix:/x"}, UnixGroup: "no such group"}}, `there is no group "no such group"`},
		{"an address of another machine", []Spec{tcp("a", "192.0.2.1:8080")}, "no interface of this machine has that address"},
		{"a folder that is not there", []Spec{tcp("a", "unix:/nowhere/x.sock")}, "the folder /nowhere has to be there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := NewSet(nil)
			_, err := s.Prepare(tt.specs)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Prepare() = %v; want it to contain %s", err, tt.want)
			}
		})
	}
}

func TestLocalhostIsBothLoopbackAddresses(t *testing.T) {
	a := free(t)
	_, port, _ := net.SplitHostPort(a)
	s := newSet(t, tcp("http", "localhost:"+port))
	var got []string
	for _, sock := range s.Sockets() {
		got = append(got, sock.Address)
	}
	if got, want := strings.Join(got, " "), "127.0.0.1:"+port+" [::1]:"+port; got != want {
		t.Errorf("localhost became %s; want %s", got, want)
	}
}

func TestWildcardOfOneFamilyLeavesTheOtherFree(t *testing.T) {
	_, port, _ := net.SplitHostPort(free(t))
	newSet(t, tcp("http", "0.0.0.0:"+port, "[::]:"+port))
}

func TestDeadlineStopsAcceptingAndLosesNoCaller(t *testing.T) {
	s := newSet(t, tcp("http", "127.0.0.1:0", "unix:"+filepath.Join(t.TempDir(), "x.sock")))
	for _, sock := range s.Sockets() {
		stopped := make(chan error)
		go func() {
			_, err := sock.Accept()
			stopped <- err
		}()
		if err := sock.SetDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := <-stopped; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: Accept() = %v; want a deadline", sock.Address, err)
		}
		answers(t, sock) // queued by the kernel, accepted once there is a deadline ahead
	}
}

func TestAcceptedConnectionsInheritTheirOptions(t *testing.T) {
	s := newSet(t, tcp("http", "127.0.0.1:0"))
	sock := s.Sockets()[0]
	c, err := net.Dial("tcp", sock.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := sock.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	raw, err := accepted.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []struct {
		name               string
		level, value, want int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveIdleSeconds},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP},
	} {
		if err := raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), option.level, option.value); err != nil || got != option.want {
				t.Errorf("%s = %d, %v; want %d", option.name, got, err, option.want)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSocketIsAListenerLikeAnyOther(t *testing.T) {
	s := newSet(t, tcp("http", "127.0.0.1:0"))
	var ln net.Listener = s.Sockets()[0]
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v; want hello", got, err)
	}
}
