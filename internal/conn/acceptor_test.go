package conn

import (
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func acceptorFor(t *testing.T, network, address string) (*Acceptor, net.Listener) {
	t.Helper()
	ln := listen(t, network, address)
	return acceptorOf(t, ln), ln
}

func acceptorOf(t *testing.T, ln net.Listener) *Acceptor {
	t.Helper()
	closer := new(Closer)
	t.Cleanup(closer.Retire)
	a, err := NewAcceptor(ln, closer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestAcceptorKnowsBothEnds(t *testing.T) {
	for _, tt := range []struct{ listen, host string }{
		{"127.0.0.1:0", "127.0.0.1"},
		{"[::1]:0", "::1"},
		{"0.0.0.0:0", "127.0.0.2"},
		{"[::]:0", "::1"},
		{"[::]:0", "127.0.0.1"}, // IPv4 on a socket of IPv6
	} {
		t.Run(tt.listen+" from "+tt.host, func(t *testing.T) {
			a, ln := acceptorFor(t, "tcp", tt.listen)
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			peer, err := net.Dial("tcp", net.JoinHostPort(tt.host, port))
			c := acceptedFrom(t, a, peer, err)
			if got, want := c.RemoteAddr().String(), peer.LocalAddr().String(); got != want {
				t.Errorf("RemoteAddr() = %s, want %s", got, want)
			}
			if got, want := c.LocalAddr().String(), peer.RemoteAddr().String(); got != want {
				t.Errorf("LocalAddr() = %s, want %s", got, want)
			}
			sendsAtOnce(t, c)
			write(t, peer, []byte("hello"))
			if got := readString(t, NewSocket(c), 5); got != "hello" {
				t.Errorf("read %q, want %q", got, "hello")
			}
		})
	}
}

// sendsAtOnce fails where a small piece would wait until the peer has acknowledged the one before, for some 40 ms.
func sendsAtOnce(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := NewSocket(c).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	set := 0
	if err := raw.Control(func(fd uintptr) { set, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY) }); err != nil || set == 0 {
		t.Errorf("TCP_NODELAY = %d, %v; want it set", set, err)
	}
}

// Callers may be in the queue before the Acceptor is there: one of them may have started the service.
func TestWhoCameBeforeTheAcceptor(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	before, err := net.Dial("tcp", ln.Addr().String())
	a := acceptorOf(t, ln)
	sendsAtOnce(t, acceptedFrom(t, a, before, err))
	after, err := net.Dial("tcp", ln.Addr().String())
	sendsAtOnce(t, acceptedFrom(t, a, after, err))
}

func TestAcceptorOfAUnixSocketKnowsBothEnds(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "s")
	a, ln := acceptorFor(t, "unix", path)
	for name, from := range map[string]*net.UnixAddr{
		"nameless": nil,
		"path":     {Name: filepath.Join(folder, "caller"), Net: "unix"},
		"abstract": {Name: "@mtls-proxy-" + rand.Text(), Net: "unix"},
	} {
		t.Run(name, func(t *testing.T) {
			peer, err := net.DialUnix("unix", from, &net.UnixAddr{Name: path, Net: "unix"})
			c := acceptedFrom(t, a, peer, err)
			if got := c.LocalAddr(); got.Network() != "unix" || got.String() != ln.Addr().String() {
				t.Errorf("LocalAddr() = %s %s, want %s", got.Network(), got, ln.Addr())
			}
			want := "@" // as net has it
			if from != nil {
				want = from.Name
			}
			if got := c.RemoteAddr(); got.Network() != "unix" || got.String() != want {
				t.Errorf("RemoteAddr() = %s %s, want unix %s", got.Network(), got, want)
			}
		})
	}
}

// Who stops accepting leaves the socket to somebody else, with what is queued there.
func TestDeadlineEndsAcceptAndLeavesTheSocketOpen(t *testing.T) {
	a, ln := acceptorFor(t, "tcp", "127.0.0.1:0")
	ended := begin(func() (int, error) { _, err := a.Accept(); return 0, err })
	if err := a.SetDeadline(past()); err != nil {
		t.Fatal(err)
	}
	if r := soon(t, "Accept", ended); !errors.Is(r.err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept = %v, want %v", r.err, os.ErrDeadlineExceeded)
	}
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if c, err := a.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept after the deadline = %v, %v; want %v", c, err, os.ErrDeadlineExceeded)
	}
	if err := a.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	next, err := NewAcceptor(ln, new(Closer))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := next.SetDeadline(time.Time{}); err != nil { // where it is that of ln
		t.Fatal(err)
	}
	c, err := next.Accept()
	if err != nil {
		t.Fatalf("Accept by another Acceptor = %v", err)
	}
	defer c.Close()
	if got, want := c.RemoteAddr().String(), peer.LocalAddr().String(); got != want {
		t.Errorf("it accepted %s, want %s, who was queued", got, want)
	}
}

type bare struct{ net.Listener }

func TestAcceptorWantsDeadlines(t *testing.T) {
	if _, err := NewAcceptor(bare{}, new(Closer)); err == nil {
		t.Error("NewAcceptor took a listener without deadlines")
	}
}
