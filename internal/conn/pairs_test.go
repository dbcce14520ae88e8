package conn

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen; without it a stall would look like nothing at all.
const patience = 20 * time.Second

// network makes two ends of a connection.
type network struct {
	name string
	pair func(t *testing.T) (ours, theirs net.Conn)
	fd   bool // has descriptors
	tcp  bool
}

func networks() []network {
	return []network{
		{"tcp", tcpPair, true, true},
		{"dialed", dialedPair, true, true},
		{"accepted", func(t *testing.T) (ours, theirs net.Conn) { return acceptedPair(t, "tcp", "127.0.0.1:0") }, true, true},
		{"unix", unixPair, true, false},
		{"accepted unix", func(t *testing.T) (ours, theirs net.Conn) {
			return acceptedPair(t, "unix", filepath.Join(t.TempDir(), "s"))
		}, true, false},
		{"pipe", func(*testing.T) (net.Conn, net.Conn) { return net.Pipe() }, false, false},
	}
}

// listen returns a listener that the test closes. Only where this host has no IPv6 it may be that there is none.
func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		fatalUnlessIPv6(t, err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// fatalUnlessIPv6 fails the test, or leaves it out when err says that this host has no IPv6.
func fatalUnlessIPv6(t *testing.T, err error) {
	t.Helper()
	none := errors.Is(err, syscall.EAFNOSUPPORT)
	if op, ok := errors.AsType[*net.OpError](err); ok && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.ENETUNREACH)) {
		to, isTCP := op.Addr.(*net.TCPAddr)
		none = isTCP && to.IP.To4() == nil
	}
	if none {
		t.Skipf("no IPv6 on this host: %v", err)
	}
	t.Fatal(err)
}

func tcpPair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ours, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// dialedPair is a connection that a Dialer opened.
func dialedPair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	address, accepted := server(t, "127.0.0.1")
	d := NewDialer(netip.Addr{})
	t.Cleanup(d.Retire)
	ours, err := d.Dial(t.Context(), patience, address)
	if err != nil {
		t.Fatal(err)
	}
	return ours, soon(t, "Accept", accepted)
}

// acceptedPair is a connection that an Acceptor accepted.
func acceptedPair(t *testing.T, network, address string) (ours, theirs net.Conn) {
	t.Helper()
	a, ln := acceptorFor(t, network, address)
	theirs, err := net.Dial(network, ln.Addr().String())
	return acceptedFrom(t, a, theirs, err), theirs
}

// acceptedFrom returns what a accepts of peer, which was just dialed with that error. The test closes both.
func acceptedFrom(t *testing.T, a *Acceptor, peer net.Conn, err error) net.Conn {
	t.Helper()
	if err != nil {
		fatalUnlessIPv6(t, err)
	}
	t.Cleanup(func() { peer.Close() })
	c, err := a.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func unixPair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		defer f.Close()
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

// each runs claim on every network, through raw system calls and through net.Conn. Under the race detector, which does
// not see the former, they are left out.
func each(t *testing.T, claim func(t *testing.T, s *Socket, peer net.Conn, n network)) {
	t.Helper()
	for _, n := range networks() {
		for _, raw := range []bool{true, false} {
			if raw && !(rawByDefault && n.fd) {
				continue
			}
			name := n.name + "/portable"
			if raw {
				name = n.name + "/raw"
			}
			t.Run(name, func(t *testing.T) {
				ours, theirs := n.pair(t)
				s := newSocket(ours, raw)
				if got := s.raw != nil; got != raw {
					t.Fatalf("raw = %v, want %v", got, raw)
				}
				t.Cleanup(func() {
					ours.Close()
					theirs.Close()
				})
				claim(t, s, theirs, n)
			})
		}
	}
}

// rawTCP runs claim on what only raw system calls on TCP do.
func rawTCP(t *testing.T, claim func(t *testing.T, s *Socket, peer net.Conn)) {
	t.Helper()
	if !rawByDefault {
		t.Skip("under the race detector, and where there is no Linux, connections go through net.Conn")
	}
	ours, theirs := tcpPair(t)
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	claim(t, newSocket(ours, true), theirs)
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); <-time.After(100 * time.Microsecond) {
		if time.Now().After(limit) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// soon returns what comes out of ch.
func soon[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("after %v still waiting for: %s", patience, what)
		panic("unreachable")
	}
}

// result is what a Read or Write returned.
type result struct {
	n   int
	err error
}

// begin runs f beside the test.
func begin(f func() (int, error)) <-chan result {
	ch := make(chan result, 1)
	go func() {
		n, err := f()
		ch <- result{n, err}
	}()
	return ch
}

// write sends b beside the test: on a pipe, a write lasts until it was read.
func write(t *testing.T, c net.Conn, b []byte) <-chan result {
	t.Helper()
	return begin(func() (int, error) { return c.Write(b) })
}

// readString reads n bytes of s.
func readString(t *testing.T, s *Socket, n int) string {
	t.Helper()
	b := make([]byte, n)
	for have := 0; have < n; {
		r := soon(t, "bytes", begin(func() (int, error) { return s.Read(b[have:]) }))
		have += r.n
		if r.err != nil {
			t.Fatalf("Read after %d bytes of %d: %v", have, n, r.err)
		}
	}
	return string(b)
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isClosed is for reads and writes that our own Close ended.
func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || err != nil && err.Error() == "io: read/write on closed pipe"
}

// unreadBytes is how many bytes wait to be read from c.
func unreadBytes(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	fd, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := fd.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return n
}
