package conn

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawAcceptor has a descriptor of its own: one of net cannot be waited for from outside.
type rawAcceptor struct {
	closer *Closer
	local  net.Addr // of all connections; nil where each has its own
	file   *os.File
	raw    syscall.RawConn

	early bool // nobody has had to wait yet: connections may be older than what the socket was told

	step func(fd uintptr) (done bool)
	next *rawConn
	err  error
}

// newRawAcceptor returns nil for a socket that it does not know.
func newRawAcceptor(ln net.Listener, closer *Closer) (*rawAcceptor, error) {
	sc, ok := ln.(syscall.Conn)
	local := ln.Addr()
	if network := local.Network(); !ok || network != "tcp" && network != "unix" {
		return nil, nil
	}
	listening, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	a := &rawAcceptor{closer: closer, local: local, early: true}
	a.step = a.acceptStep
	tcp, isTCP := local.(*net.TCPAddr)
	if isTCP && tcp.IP.IsUnspecified() {
		a.local = nil
	}
	own, failed := 0, error(nil)
	err = listening.Control(func(fd uintptr) {
		own, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if isTCP {
			setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // connections that come from now on inherit it
		}
	})
	if err = errors.Join(err, os.NewSyscallError("fcntl", failed)); err != nil {
		return nil, err
	}
	a.file = os.NewFile(uintptr(own), "listener")
	if a.raw, err = a.file.SyscallConn(); err != nil {
		_ = a.file.Close()
		return nil, err
	}
	return a, nil
}

func (a *rawAcceptor) accept() (net.Conn, error) {
	a.next, a.err = nil, nil
	if err := a.raw.Read(a.step); err != nil {
		return nil, err
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.next, nil
}

func (a *rawAcceptor) acceptNow() (net.Conn, error) {
	a.next, a.err = nil, nil
	done := false
	if err := a.raw.Control(func(fd uintptr) { done = a.acceptStep(fd) }); err != nil {
		return nil, err
	}
	switch {
	case !done:
		return nil, ErrWouldBlock
	case a.err != nil:
		return nil, a.err
	}
	return a.next, nil
}

// acceptStep is what the poller calls until it returns true.
func (a *rawAcceptor) acceptStep(fd uintptr) (done bool) {
	for {
		s, peer, errno := accept(fd)
		switch errno {
		case 0:
			if _, isTCP := peer.(*net.TCPAddr); isTCP && a.early {
				setOption(s, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			}
			a.next = newRawConn(s, a.closer, peer, a.local)
			return true
		case unix.EAGAIN:
			a.early = false
			return false
		case unix.EINTR, unix.ECONNABORTED: // it went away while it was queued
		default:
			a.err = os.NewSyscallError("accept4", errno)
			return true
		}
	}
}
