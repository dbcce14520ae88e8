package logging

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// post sends datagrams, as many as the kernel takes with one call: sendmmsg(2).
type post struct {
	messages []mmsghdr
	pieces   []syscall.Iovec
	first    int // what is to be sent next
	n        int // how many of them the last call took
	err      error
	call     func(fd uintptr) (done bool) // once, for a closure is an allocation
}

// mmsghdr is a datagram of sendmmsg.
type mmsghdr struct {
	header syscall.Msghdr
	_      uint32 // how much of it was sent: all
}

// load takes the datagrams of b, which end at ends. It keeps b until the next time.
func (p *post) load(b []byte, ends []int) {
	p.messages, p.pieces = p.messages[:0], p.pieces[:0]
	start := 0
	for _, end := range ends {
		piece := syscall.Iovec{Base: &b[start]}
		piece.SetLen(end - start)
		p.pieces = append(p.pieces, piece)
		start = end
	}
	for i := range p.pieces {
		p.messages = append(p.messages, mmsghdr{header: syscall.Msghdr{Iov: &p.pieces[i], Iovlen: 1}})
	}
}

// send sends the datagrams from the one with that number on. It waits until the kernel takes one, as long as the deadline of
// conn allows, and tells how many it took.
func (p *post) send(conn syscall.RawConn, first int) (n int, err error) {
	if p.call == nil {
		p.call = p.try
	}
	p.first, p.n, p.err = first, 0, nil
	if err := conn.Write(p.call); err != nil {
		return 0, err
	}
	return p.n, p.err
}

func (p *post) try(fd uintptr) (done bool) {
	for {
		// It does not block, so the scheduler need not know.
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&p.messages[p.first])),
			uintptr(len(p.messages)-p.first), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			p.n = int(n)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			p.err = os.NewSyscallError("sendmmsg", errno)
			return true
		}
	}
}
