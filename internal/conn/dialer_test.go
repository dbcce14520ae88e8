package conn

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// server returns a listener on host, whose connections are handed over.
func server(t *testing.T, host string) (address string, accepted <-chan net.Conn) {
	t.Helper()
	ln := listen(t, "tcp", net.JoinHostPort(host, "0"))
	conns := make(chan net.Conn)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	return ln.Addr().String(), conns
}

func TestDialerConnects(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			address, accepted := server(t, host)
			d := NewDialer(netip.Addr{})
			defer d.Retire()
			c, err := d.Dial(t.Context(), time.Minute, address)
			if err != nil {
				t.Fatal(err)
			}
			peer := soon(t, "Accept", accepted)
			defer peer.Close()
			if got := c.RemoteAddr().String(); got != address {
				t.Errorf("RemoteAddr() = %s, want %s", got, address)
			}
			if got, want := c.LocalAddr().String(), peer.RemoteAddr().String(); got != want {
				t.Errorf("LocalAddr() = %s, want %s", got, want)
			}
			s := NewSocket(c)
			write(t, peer, []byte("hello"))
			if got := readString(t, s, 5); got != "hello" {
				t.Errorf("read %q, want %q", got, "hello")
			}
			if _, err := s.Write([]byte("world")); err != nil {
				t.Errorf("Write = %v", err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Errorf("CloseWrite = %v", err)
			}
			heard := make(chan string, 1)
			go func() { b, _ := io.ReadAll(peer); heard <- string(b) }()
			if got := soon(t, "the peer's end", heard); got != "world" {
				t.Errorf("the peer read %q, want %q", got, "world")
			}
			write(t, peer, []byte("still"))
			if got := readString(t, s, 5); got != "still" {
				t.Errorf("read %q after CloseWrite, want %q", got, "still")
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		})
	}
}

// Errors are read by fault.Classify, and by people.
func TestDialerSaysWhyItFailed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	left, leave := context.WithCancelCause(t.Context())
	leave(errors.New("enough"))
	for name, tt := range map[string]struct {
		ctx     context.Context
		from    string
		address string
		want    error
		text    string
	}{
		"nobody listens":     {address: nobody, want: syscall.ECONNREFUSED, text: "dial tcp " + nobody + ": connect: connection refused"},
		"bind is elsewhere":  {from: "192.0.2.77", address: nobody, want: syscall.EADDRNOTAVAIL},
		"who asked has left": {ctx: left, address: nobody, want: context.Canceled},
		"bind cannot get to": {from: "127.0.0.2", address: "192.0.2.1:443", want: syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.ctx == nil {
				tt.ctx = t.Context()
			}
			var from netip.Addr
			if tt.from != "" {
				from = netip.MustParseAddr(tt.from)
			}
			c, err := NewDialer(from).Dial(tt.ctx, time.Minute, tt.address)
			if c != nil {
				t.Fatalf("Dial = %v, want an error", c.RemoteAddr())
			}
			_, isOp := errors.AsType[*net.OpError](err)
			if !isOp || !errors.Is(err, tt.want) || tt.text != "" && err.Error() != tt.text {
				t.Errorf("Dial = %v, want %v in a net.OpError: %s", err, tt.want, tt.text)
			}
		})
	}
}

// deaf is an address at which nobody takes connections any more, as too many wait already.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*syscall.SockaddrInet4).Port)).String()
	for range 10 {
		c, err := net.DialTimeout("tcp", address, 50*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("a socket without room lets any number of connections wait")
	return ""
}

func TestDialerWaitsNoLongerThanItMay(t *testing.T) {
	address := deaf(t)
	_, err := NewDialer(netip.Addr{}).Dial(t.Context(), time.Millisecond, address)
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("Dial = %v, want a timeout", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := begin(func() (int, error) {
		_, err := NewDialer(netip.Addr{}).Dial(ctx, 0, address)
		return 0, err
	})
	cancel()
	if r := soon(t, "Dial", failed); r.err == nil {
		t.Error("Dial succeeded without anybody who answers")
	}
}

func TestDialerResetsWhatIsAborted(t *testing.T) {
	address, accepted := server(t, "127.0.0.1")
	c, err := NewDialer(netip.Addr{}).Dial(t.Context(), time.Minute, address)
	if err != nil {
		t.Fatal(err)
	}
	peer := soon(t, "Accept", accepted)
	defer peer.Close()
	if err := NewSocket(c).Abort(); err != nil {
		t.Errorf("Abort = %v", err)
	}
	if r := soon(t, "the peer's read", begin(func() (int, error) { return peer.Read(make([]byte, 1)) })); !errors.Is(r.err, syscall.ECONNRESET) {
		t.Errorf("the peer's read = %v, want %v", r.err, syscall.ECONNRESET)
	}
}

// The peer is told before the descriptor's number is free again.
func TestLeaveTellsThePeerAtOnce(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		ended := begin(func() (int, error) { return peer.Read(make([]byte, 1)) })
		if err := s.Leave(); err != nil {
			t.Errorf("Leave = %v", err)
		}
		if r := soon(t, "the peer's read", ended); !errors.Is(r.err, io.EOF) {
			t.Errorf("the peer's read = %v, want %v", r.err, io.EOF)
		}
	})
}

func TestFewDescriptorsAreLeft(t *testing.T) {
	address, accepted := server(t, "127.0.0.1")
	d := NewDialer(netip.Addr{})
	before := descriptorsOpen(t)
	use := func() {
		c, err := d.Dial(t.Context(), time.Minute, address)
		if err != nil {
			t.Fatal(err)
		}
		peer := soon(t, "Accept", accepted)
		if err := NewSocket(c).Leave(); err != nil {
			t.Error(err)
		}
		peer.Close()
	}
	for range 3*mostLeft + 1 {
		use()
	}
	if now := descriptorsOpen(t); now > before+mostLeft {
		t.Errorf("%d descriptors are open, %d before", now, before)
	}
	d.Sweep()
	if now := descriptorsOpen(t); now > before+1 { // that of the null device
		t.Errorf("%d descriptors are open after Sweep, %d before", now, before)
	}
	use()
	d.Retire()
	use()
	if now := descriptorsOpen(t); now > before {
		t.Errorf("%d descriptors are open after Retire, %d before", now, before)
	}
}

func descriptorsOpen(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
