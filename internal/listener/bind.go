package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// unixPrefix marks the address of a Unix socket.
const unixPrefix = "unix:"

// Keep-alive probes find callers that vanished without a word, on addresses
// beyond loopback: after two minutes of silence, four probes.
const (
	keepAliveIdleSeconds     = 120
	keepAliveIntervalSeconds = 15
	keepAliveProbes          = 4
)

// place is one address that can be bound.
type place struct {
	address  string // in its canonical spelling: equal means the same place
	network  string // "tcp4", "tcp6" or "tcp"; "" for a Unix socket
	tcp      netip.AddrPort
	path     string
	optional bool // may be missing on this machine: the ::1 of "localhost"
	anyPort  bool // each bind gives another port
}

// errNoAddress is told beside the address and the listener.
var errNoAddress = errors.New(`it is none of "IP:PORT", "localhost:PORT" and "unix:/PATH"`)

// overlaps reports whether sock keeps p from being bound.
func (p place) overlaps(sock *Socket) bool {
	a, ok := sock.Addr().(*net.TCPAddr)
	if !ok || a.Port != int(p.tcp.Port()) {
		return false
	}
	return a.IP.IsUnspecified() || p.tcp.Addr().IsUnspecified() || a.AddrPort().Addr().Unmap() == p.tcp.Addr()
}

// parse returns the places that the addresses of spec mean.
func parse(spec Spec) ([]place, error) {
	var places []place
	for _, a := range spec.Addresses {
		p, err := parseAddress(a)
		if err != nil {
			return nil, fmt.Errorf("listener %q: address %q: %w", spec.Name, a, err)
		}
		places = append(places, p...)
	}
	return places, nil
}

func parseAddress(a string) ([]place, error) {
	if path, ok := strings.CutPrefix(a, unixPrefix); ok {
		path = filepath.Clean(path)
		switch {
		case !filepath.IsAbs(path):
			return nil, errors.New("the path of a Unix socket has to be absolute")
		case len(path) >= len(unix.RawSockaddrUnix{}.Path):
			return nil, fmt.Errorf("the path has %d bytes; the kernel takes %d", len(path), len(unix.RawSockaddrUnix{}.Path)-1)
		}
		return []place{{address: unixPrefix + path, path: path}}, nil
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return nil, errNoAddress
	}
	tcp := func(network, ip string, optional bool) (place, error) {
		ap, err := netip.ParseAddrPort(net.JoinHostPort(ip, port))
		if err != nil {
			return place{}, errNoAddress
		}
		ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		if network == "" {
			network = "tcp6"
			if ap.Addr().Is4() {
				network = "tcp4"
			}
		}
		return place{address: ap.String(), network: network, tcp: ap, optional: optional, anyPort: ap.Port() == 0}, nil
	}
	switch host {
	case "localhost":
		v4, err := tcp("", "127.0.0.1", false)
		if err != nil {
			return nil, err
		}
		v6, err := tcp("", "::1", true)
		return []place{v4, v6}, err
	case "":
		p, err := tcp("tcp", "::", false)
		p.address = ":" + strconv.Itoa(int(p.tcp.Port()))
		return []place{p}, err
	}
	p, err := tcp("", host, false)
	return []place{p}, err
}

// bind listens at p. Where it made a file, it leaves that in file.
func (p place) bind(perm permissions, file *atomic.Pointer[socketFile]) (Acceptor, error) {
	if p.path != "" {
		ln, f, err := bindUnix(p.path, perm)
		if err != nil {
			return nil, err
		}
		file.Store(f)
		return ln, nil
	}
	lc := net.ListenConfig{
		// Accepted connections inherit the options of the listening socket, so
		// they are set once here and cost no system call per connection.
		KeepAlive: -1,
		Control:   keepAlive,
	}
	// Local callers have one path to us. Go would ask for Multipath TCP.
	lc.SetMultipathTCP(false)
	// An address in numbers is not resolved, so there is nothing to cancel.
	ln, err := lc.Listen(context.Background(), p.network, p.address)
	if err != nil {
		return nil, cause(err)
	}
	return ln.(*net.TCPListener), nil
}

func keepAlive(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		set := func(level, option, value int) {
			if e := unix.SetsockoptInt(int(fd), level, option, value); e != nil && err == nil {
				err = os.NewSyscallError("setsockopt", e)
			}
		}
		set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveIdleSeconds)
		set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveIntervalSeconds)
		set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveProbes)
	}); e != nil {
		return e
	}
	return err
}

// duplicate opens the socket of a once more. It takes care not to go through
// os.File.Fd of a file that Go made non-blocking, which would make the socket
// blocking for a moment and tie up whoever accepts on it.
func duplicate(a Acceptor) (Acceptor, error) {
	raw, err := a.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("fcntl", dupErr)
	}
	f := os.NewFile(uintptr(fd), "listener") // finds it non-blocking and leaves it so
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, cause(err)
	}
	return ln.(Acceptor), nil
}

// cause takes away what net wraps around a system error: the address, which
// our own message names.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// unavailable reports whether the machine lacks the address altogether, as
// where IPv6 is switched off.
func unavailable(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
