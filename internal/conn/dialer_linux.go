package conn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How the kernel finds out that a peer has vanished: as with net.Dialer, nine probes without an answer, the first of them
// after so many seconds of silence.
const keepAlive = 15

// bindLate keeps bind from taking a port. A system that does not know the option goes on with fewer ports.
func bindLate(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { setOption(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
}

// dialRaw is Dial to an address of which fits is true.
func (d *Dialer) dialRaw(ctx context.Context, limit time.Duration, to netip.AddrPort) (net.Conn, error) {
	c, err := d.connect(ctx, limit, to)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: d.net.LocalAddr, Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}

// mostSelves is how often a connection may turn out to lead to itself. That is so where the port is one that the system
// also gives to those who connect: when nobody listens there, TCP lets a socket connect with itself.
const mostSelves = 3

func (d *Dialer) connect(ctx context.Context, limit time.Duration, to netip.AddrPort) (*rawConn, error) {
	for range mostSelves {
		c, err := d.try(ctx, limit, to)
		if err != nil || !c.leadsToItself() {
			return c, err
		}
		_ = c.Close()
	}
	return nil, os.NewSyscallError("connect", unix.ECONNREFUSED)
}

func (d *Dialer) try(ctx context.Context, limit time.Duration, to netip.AddrPort) (*rawConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := d.begin(to)
	if err != nil {
		return nil, err
	}
	c := newRawConn(fd, &d.Closer, net.TCPAddrFromAddrPort(to), nil)
	err = c.established(ctx, limit)
	if err == nil {
		err = c.file.poll() // what is said first will be waited for
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// begin returns a socket that is being connected.
func (d *Dialer) begin(to netip.AddrPort) (uintptr, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	s := uintptr(fd)
	// What cannot be set is not needed to talk.
	setOption(s, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	setOption(s, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	setOption(s, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAlive)
	setOption(s, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAlive)
	if d.from.IsValid() {
		setOption(s, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		err = os.NewSyscallError("bind", callWithAddress(unix.SYS_BIND, s, netip.AddrPortFrom(d.from.Unmap(), 0)))
	}
	if err == nil {
		err = callWithAddress(unix.SYS_CONNECT, s, to)
		if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
			err = nil
		}
		err = os.NewSyscallError("connect", err)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	return s, nil
}

// established waits until the connection is there. On loopback it is already.
func (c *rawConn) established(ctx context.Context, limit time.Duration) error {
	var failed error
	step := func(fd uintptr) bool {
		var done bool
		done, failed = connected(fd)
		return done || failed != nil
	}
	done := false
	if err := c.file.Control(func(fd uintptr) { done = step(fd) }); err != nil {
		return err
	}
	if done {
		return failed
	}
	if limit > 0 {
		_ = c.file.SetWriteDeadline(time.Now().Add(limit))
	}
	stop := context.AfterFunc(ctx, func() { _ = c.file.SetWriteDeadline(past()) })
	err := c.file.Write(step) // the poller forgets what it knew before step looks
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	_ = c.file.SetWriteDeadline(time.Time{})
	return failed
}
