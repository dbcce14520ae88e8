package conn

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpConn is a connection that a Dialer opened or an Acceptor accepted. Its errors are those of an os.File.
type tcpConn struct {
	closer *Closer
	file   *os.File
	raw    syscall.RawConn
	peer   netip.AddrPort
	local  netip.AddrPort // the zero one when it is not known
}

// newTCPConn returns a connection that owns fd, a non-blocking socket. On error, fd is closed.
func newTCPConn(fd uintptr, closer *Closer, peer, local netip.AddrPort) (*tcpConn, error) {
	c := &tcpConn{closer: closer, file: os.NewFile(fd, "tcp"), peer: peer, local: local}
	raw, err := c.file.SyscallConn()
	if err != nil {
		_ = c.file.Close()
		return nil, err
	}
	c.raw = raw
	return c, nil
}

// SyscallConn implements syscall.Conn.
func (c *tcpConn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Close implements net.Conn.
func (c *tcpConn) Close() error { return c.file.Close() }

// leave implements leaver.
func (c *tcpConn) leave() {
	c.closer.close(c.file, func(null uintptr) error {
		var failed error
		err := c.raw.Control(func(fd uintptr) { failed = replace(fd, null) })
		return errors.Join(err, failed)
	})
}

// CloseWrite tells the peer that we will send no more.
func (c *tcpConn) CloseWrite() error {
	var failed error
	err := c.raw.Control(func(fd uintptr) { failed = os.NewSyscallError("shutdown", unix.Shutdown(int(fd), unix.SHUT_WR)) })
	return errors.Join(err, failed)
}

// SetLinger does what that of net.TCPConn does, but for negative numbers.
func (c *tcpConn) SetLinger(seconds int) error {
	var failed error
	err := c.raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
	})
	return errors.Join(err, failed)
}

// Read implements net.Conn.
func (c *tcpConn) Read(b []byte) (int, error) { return c.file.Read(b) }

// Write implements net.Conn.
func (c *tcpConn) Write(b []byte) (int, error) { return c.file.Write(b) }

// LocalAddr implements net.Conn.
func (c *tcpConn) LocalAddr() net.Addr {
	local := c.local
	if !local.IsValid() {
		_ = c.raw.Control(func(fd uintptr) { local = ownAddress(fd) })
	}
	return net.TCPAddrFromAddrPort(local)
}

// RemoteAddr implements net.Conn.
func (c *tcpConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.peer) }

// SetDeadline implements net.Conn.
func (c *tcpConn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *tcpConn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *tcpConn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }
