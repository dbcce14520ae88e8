package conn

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDialerLeavesFromItsAddress(t *testing.T) {
	for _, tt := range []struct{ listen, from, want string }{
		{"127.0.0.1:0", "127.0.0.2", "127.0.0.2"},
		{"127.0.0.1:0", "", "127.0.0.1"},
		{"[::1]:0", "::1", "::1"},
	} {
		ln := listen(t, "tcp", tt.listen)
		from, _ := netip.ParseAddr(tt.from)
		c, err := NewDialer(from).Dial(t.Context(), time.Minute, ln.Addr().String())
		if err != nil {
			t.Fatalf("from %q: %v", tt.from, err)
		}
		defer c.Close()
		if got := c.LocalAddr().(*net.TCPAddr).AddrPort(); got.Addr().String() != tt.want || got.Port() == 0 {
			t.Errorf("from %q, the connection leaves from %v; want %s", tt.from, got, tt.want)
		}
	}
}

// What bind would take for good is left to connect.
func TestDialerTakesNoPortBeforeItConnects(t *testing.T) {
	for _, from := range []string{"127.0.0.2", "::1"} {
		d := NewDialer(netip.MustParseAddr(from)).net
		set, family := 0, syscall.AF_INET
		if d.LocalAddr.(*net.TCPAddr).IP.To4() == nil {
			family = syscall.AF_INET6
		}
		fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			fatalUnlessIPv6(t, err)
		}
		defer syscall.Close(fd)
		if err := d.Control("tcp", "", descriptor(fd)); err != nil {
			t.Fatal(err)
		}
		if set, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT); err != nil || set != 1 {
			t.Errorf("from %s: IP_BIND_ADDRESS_NO_PORT = %d, %v; want 1", from, set, err)
		}
	}
}

// TCP lets a socket connect with itself; whoever looks for a server has not found one then.
func TestDialerTellsAConnectionToItself(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own := ownAddress(uintptr(fd))
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: own.Addr().As4(), Port: int(own.Port())}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	c := newRawConn(uintptr(fd), new(Closer), net.TCPAddrFromAddrPort(own), nil)
	defer c.Close()
	if !c.leadsToItself() {
		t.Error("leadsToItself() = false for a socket that is connected with itself")
	}
	address, accepted := server(t, "127.0.0.1")
	other, err := NewDialer(netip.Addr{}).dialRaw(t.Context(), patience, netip.MustParseAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	defer soon(t, "Accept", accepted).Close()
	if other.(*rawConn).leadsToItself() {
		t.Error("leadsToItself() = true for a connection to a server")
	}
}

// descriptor is a RawConn of which only Control is there.
type descriptor int

func (d descriptor) Control(f func(fd uintptr)) error { f(uintptr(d)); return nil }
func (descriptor) Read(func(uintptr) bool) error      { return syscall.ENOTSUP }
func (descriptor) Write(func(uintptr) bool) error     { return syscall.ENOTSUP }
