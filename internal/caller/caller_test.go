package caller

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// places are where callers connect: network and address to listen on.
var places = []struct{ name, network, address, dial string }{
	{"IPv4", "tcp", "127.0.0.1:0", "tcp4"},
	{"IPv6", "tcp", "[::1]:0", "tcp6"},
	{"IPv4 at a socket for both", "tcp", "[::]:0", "tcp4"},
	{"Unix", "unix", "", "unix"},
}

// listen opens a listener and returns where to dial it.
func listen(t testing.TB, network, address, dial string) (net.Listener, string) {
	t.Helper()
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "sock")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Skip(err) // no IPv6 here
	}
	t.Cleanup(func() { _ = ln.Close() })
	at := ln.Addr().String()
	if network == "unix" {
		if err := os.Chmod(at, 0o777); err != nil {
			t.Fatal(err)
		}
		for dir := filepath.Dir(at); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if dial == "tcp4" {
		_, port, _ := net.SplitHostPort(at)
		at = "127.0.0.1:" + port
	}
	return ln, at
}

// connect returns both ends of a connection, the caller's first.
func connect(t testing.TB, network, address, dial string) (theirs, ours net.Conn) {
	t.Helper()
	ln, at := listen(t, network, address, dial)
	theirs, err := net.Dial(dial, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close() })
	return theirs, accept(t, ln)
}

func accept(t testing.TB, ln net.Listener) net.Conn {
	t.Helper()
	ours, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	return ours
}

func newLookup(t testing.TB) *Lookup {
	l := NewLookup()
	t.Cleanup(l.Close)
	return l
}

func of(t testing.TB, l *Lookup, c net.Conn, facts Facts) Caller {
	t.Helper()
	who, err := l.Of(c.(Conn), facts)
	if err != nil {
		t.Fatalf("Of(%v) = %v", c.RemoteAddr(), err)
	}
	return who
}

func TestUserOfACaller(t *testing.T) {
	l := newLookup(t)
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			_, ours := connect(t, p.network, p.address, p.dial)
			who, want := of(t, l, ours, User), "uid:"+strconv.Itoa(os.Getuid())
			if string(who.User) != want || int(who.UID) != os.Getuid() || who.Has() != User {
				t.Errorf("Of() = %+v, want user %q and no unit", who, want)
			}
		})
	}
}

// dialAs connects as another user, and returns the descriptor. One thread becomes that user, and ends thereafter.
func dialAs(t *testing.T, uid int, ln net.Listener) int {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- result{err: errno}
			return
		}
		var sa unix.Sockaddr
		family := unix.AF_INET
		switch a := ln.Addr().(type) {
		case *net.TCPAddr:
			if ip := a.IP.To4(); ip != nil {
				sa = &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
				break
			}
			sa, family = &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP)}, unix.AF_INET6
			if a.IP.IsUnspecified() { // by an IPv6 socket that speaks IPv4
				sa.(*unix.SockaddrInet6).Addr = [16]byte(net.ParseIP("127.0.0.1").To16())
			}
		case *net.UnixAddr:
			sa, family = &unix.SockaddrUnix{Name: a.Name}, unix.AF_UNIX
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, sa)
		}
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatalf("connect to %v as %d: %v", ln.Addr(), uid, r.err)
	}
	return r.fd
}

func TestCallersOfSeveralUsersAreToldApart(t *testing.T) {
	l := newLookup(t)
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			ln, _ := listen(t, p.network, p.address, p.dial)
			for _, uid := range []int{4711, 0, 70000} {
				fd := dialAs(t, uid, ln)
				who, want := of(t, l, accept(t, ln), User), "uid:"+strconv.Itoa(uid)
				if string(who.User) != want || int(who.UID) != uid {
					t.Errorf("Of() = %+v, want user %q", who, want)
				}
				_ = unix.Close(fd)
			}
		})
	}
}

// The kernel says "root" of a socket that nobody holds any more.
func TestACallerWhoLeftIsUnknown(t *testing.T) {
	l := newLookup(t)
	for name, leave := range map[string]func(*net.TCPConn) error{
		"closed": func(c *net.TCPConn) error { return c.Close() },
		"reset": func(c *net.TCPConn) error {
			if err := c.SetLinger(0); err != nil {
				return err
			}
			return c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			theirs, ours := connect(t, "tcp", "127.0.0.1:0", "tcp4")
			if err := leave(theirs.(*net.TCPConn)); err != nil {
				t.Fatal(err)
			}
			if who := of(t, l, ours, User|Unit); who.Has() != 0 {
				t.Errorf("Of() = %+v, want nothing", who)
			}
		})
	}
}

func TestACallerWhoHasSentAllIsKnown(t *testing.T) {
	theirs, ours := connect(t, "tcp", "127.0.0.1:0", "tcp4")
	if err := theirs.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if who := of(t, newLookup(t), ours, User); who.Has() != User {
		t.Errorf("Of() = %+v, want the user", who)
	}
}

// moved is a connection that says that it comes from elsewhere.
type moved struct {
	Conn
	remote net.Addr
}

func (m moved) RemoteAddr() net.Addr { return m.remote }

// By the addresses of somebody else's connection, as if ours had been reset and they had got its address.
func TestACallerOfAConnectionThatEndedIsUnknown(t *testing.T) {
	l := newLookup(t)
	ln, at := listen(t, "tcp", "127.0.0.1:0", "tcp4")
	first, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	ended := accept(t, ln)
	second, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	accept(t, ln)
	c := moved{ended.(Conn), second.LocalAddr()}
	if who, err := l.Of(c, User); err != nil || who.Has() != User {
		t.Fatalf("Of() of a connection that lives = %+v, %v; the test shows nothing", who, err)
	}
	_ = first.(*net.TCPConn).SetLinger(0)
	_ = first.Close()
	if _, err := ended.Read(make([]byte, 1)); err == nil {
		t.Fatal("not reset")
	}
	if who, err := l.Of(c, User); err != nil || who.Has() != 0 {
		t.Errorf("Of() = %+v, %v; want nothing", who, err)
	}
}

func TestACallerOfAnotherHostIsNotAskedFor(t *testing.T) {
	_, ours := connect(t, "tcp", "127.0.0.1:0", "tcp4")
	l := newLookup(t)
	who, err := l.Of(moved{ours.(Conn), &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}}, User)
	if err != nil || who.Has() != 0 || l.diag.on {
		t.Errorf("Of() = %+v, %v, asked = %v; want nothing", who, err, l.diag.on)
	}
}

func TestUsersWithoutANumberAreUnknown(t *testing.T) {
	for name, tt := range map[string]struct {
		users users
		uid   uint32
		want  bool
	}{
		"nobody, where all have numbers":    {users{overflow: 65534}, 65534, false},
		"nobody, where some have none":      {users{some: true, overflow: 65534}, 65534, true},
		"somebody, where some have none":    {users{some: true, overflow: 65534}, 1000, false},
		"no user":                           {users{overflow: 65534}, 1<<32 - 1, true},
		"nobody, where that is not the one": {users{some: true, overflow: 12}, 65534, false},
	} {
		if got := tt.users.hides(tt.uid); got != tt.want {
			t.Errorf("%s: hides(%d) = %v, want %v", name, tt.uid, got, tt.want)
		}
	}
	for uidMap, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"         0          0      65536\n": false, // PrivateUsers=identity
		"0 0 1\n1 100000 65536\n":            false,
		"         0     100000 4294967295\n": true,
		"         1          0 4294967295\n": false,
		"":                                   false,
	} {
		if got := mapsAll(uidMap); got != want {
			t.Errorf("mapsAll(%q) = %v, want %v", uidMap, got, want)
		}
	}
}

func TestNamesOfUsers(t *testing.T) {
	l := newLookup(t)
	for uid, want := range map[uint32]string{0: "user root", 3999999999: "uid 3999999999"} {
		for range 2 {
			if got := l.Name(uid); got != want {
				t.Errorf("Name(%d) = %q, want %q", uid, got, want)
			}
		}
	}
	for uid := range uint32(mostNames) {
		l.names.of[uid] = "user x"
	}
	l.Name(4000000000)
	if n := len(l.names.of); n > mostNames {
		t.Errorf("%d names are remembered, want %d at most", n, mostNames)
	}
}

func BenchmarkOf(b *testing.B) {
	for _, bb := range []struct {
		name, network, address string
		facts                  Facts
		bySearch               bool
	}{
		{"tcp/user", "tcp", "127.0.0.1:0", User, false},
		{"tcp/unit", "tcp", "127.0.0.1:0", Unit, false},
		{"unix/user", "unix", "", User, false},
		{"unix/unit", "unix", "", Unit, false},
		{"unix/unit by search", "unix", "", Unit, true},
	} {
		b.Run(bb.name, func(b *testing.B) {
			_, ours := connect(b, bb.network, bb.address, bb.network)
			l := newLookup(b)
			l.cgroups.bySearch = bb.bySearch
			b.ReportAllocs()
			for b.Loop() {
				of(b, l, ours, bb.facts)
			}
		})
	}
}

func BenchmarkWalk(b *testing.B) {
	l := newLookup(b)
	n := 0
	for b.Loop() {
		n = 0
		l.cgroups.walk(func(string, uint64) bool { n++; return true })
	}
	b.ReportMetric(float64(n), "cgroups")
}
