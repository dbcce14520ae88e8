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

// rawConn is a connection that a Dialer opened or an Acceptor accepted. Its errors are those of an os.File.
type rawConn struct {
	closer *Closer
	file   lazyFile
	peer   net.Addr
	local  net.Addr // nil when it is not known: that of TCP can be asked for
}

// newRawConn returns a connection that owns fd, a non-blocking socket.
func newRawConn(fd uintptr, closer *Closer, peer, local net.Addr) *rawConn {
	return &rawConn{closer: closer, file: lazyFile{name: peer.Network(), fd: fd}, peer: peer, local: local}
}

// SyscallConn implements syscall.Conn.
func (c *rawConn) SyscallConn() (syscall.RawConn, error) { return &c.file, nil }

// Close implements net.Conn.
func (c *rawConn) Close() error { return c.file.Close() }

// leave implements leaver.
func (c *rawConn) leave() {
	if c.file.closeUnpolled() {
		return
	}
	c.closer.close(&c.file, func(null uintptr) error {
		var failed error
		err := c.file.Control(func(fd uintptr) { failed = replace(fd, null) })
		return errors.Join(err, failed)
	})
}

// CloseWrite tells the peer that we will send no more.
func (c *rawConn) CloseWrite() error {
	var failed error
	err := c.file.Control(func(fd uintptr) { failed = os.NewSyscallError("shutdown", unix.Shutdown(int(fd), unix.SHUT_WR)) })
	return errors.Join(err, failed)
}

// SetLinger does what that of net.TCPConn does, but for negative numbers.
func (c *rawConn) SetLinger(seconds int) error {
	var failed error
	err := c.file.Control(func(fd uintptr) {
		failed = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
	})
	return errors.Join(err, failed)
}

// Read implements net.Conn.
func (c *rawConn) Read(b []byte) (int, error) {
	if err := c.file.poll(); err != nil {
		return 0, err
	}
	return c.file.file.Read(b)
}

// Write implements net.Conn.
func (c *rawConn) Write(b []byte) (int, error) {
	if err := c.file.poll(); err != nil {
		return 0, err
	}
	return c.file.file.Write(b)
}

// LocalAddr implements net.Conn.
func (c *rawConn) LocalAddr() net.Addr {
	if c.local != nil {
		return c.local
	}
	return net.TCPAddrFromAddrPort(c.ownAddress())
}

// RemoteAddr implements net.Conn.
func (c *rawConn) RemoteAddr() net.Addr { return c.peer }

// ownAddress is our end's, of TCP.
func (c *rawConn) ownAddress() (own netip.AddrPort) {
	_ = c.file.Control(func(fd uintptr) { own = ownAddress(fd) })
	return own
}

// leadsToItself reports whether both ends are the same.
func (c *rawConn) leadsToItself() bool {
	peer, isTCP := c.peer.(*net.TCPAddr)
	return isTCP && c.ownAddress() == peer.AddrPort()
}

// SetDeadline implements net.Conn.
func (c *rawConn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *rawConn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *rawConn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }
