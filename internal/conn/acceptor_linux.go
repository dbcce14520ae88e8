package conn

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawAcceptor has a descriptor of its own: one of net cannot be waited for from outside.
type rawAcceptor struct {
	closer *Closer
	local  netip.AddrPort // of all connections; the zero one where each has its own
	file   *os.File
	raw    syscall.RawConn

	step func(fd uintptr) (done bool)
	next *tcpConn
	err  error
}

func newRawAcceptor(ln net.Listener, local netip.AddrPort, closer *Closer) (*rawAcceptor, error) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, nil
	}
	listening, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	a := &rawAcceptor{closer: closer}
	a.step = a.acceptStep
	if !local.Addr().IsUnspecified() {
		a.local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	}
	own, failed := 0, error(nil)
	err = listening.Control(func(fd uintptr) {
		own, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // for whatever is accepted: it is inherited
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

func (a *rawAcceptor) accept() (*tcpConn, error) {
	a.next, a.err = nil, nil
	if err := a.raw.Read(a.step); err != nil {
		return nil, err
	}
	return a.next, a.err
}

// acceptStep is what the poller calls until it returns true.
func (a *rawAcceptor) acceptStep(fd uintptr) (done bool) {
	for {
		s, peer, errno := accept(fd)
		switch errno {
		case 0:
			a.next, a.err = newTCPConn(s, a.closer, peer, a.local)
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNABORTED: // it went away while it was queued
		default:
			a.err = os.NewSyscallError("accept4", errno)
			return true
		}
	}
}
