package conn

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// descriptors says that readNow and its like work here.
const descriptors = true

// readNow reads from a non-blocking socket that the caller holds.
func readNow(fd uintptr, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, errno := sysRead(fd, b)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return 0, ErrWouldBlock
		case errno != 0:
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// writeNow writes what the kernel takes, to a non-blocking socket that the caller holds. A broken connection is EPIPE. It is
// send(2), as recv(2) is what reads: write(2) and read(2) do the same, but first look for what only files have.
func writeNow(fd uintptr, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return 0, ErrWouldBlock
		case errno != 0:
			return 0, os.NewSyscallError("write", errno)
		default:
			return int(n), nil
		}
	}
}

// What follows are system calls that do not block, of which the runtime therefore learns nothing, on a descriptor that the
// caller holds or has made.

// setLowWater sets how many bytes make a descriptor readable, as far as its protocol knows of such a thing: TCP does. The
// kernel takes less when its buffer could not hold them.
func setLowWater(fd uintptr, n int) { setOption(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) }

// setOption sets an option of a socket that is a number. A kernel that does not know it goes on without.
func setOption(fd uintptr, level, name, value int) {
	v := int32(value)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, fd, uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
}

// readable looks whether there are bytes to read, or the end.
func readable(fd uintptr) bool {
	var b [1]byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	return errno != syscall.EAGAIN
}

// peerEnd looks whether the peer has closed its side.
func peerEnd(fd uintptr) End {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
	var now unix.Timespec
	n, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	switch {
	case errno != 0 || n == 0:
	case p.Revents&(unix.POLLHUP|unix.POLLERR) != 0:
		return Closed
	case p.Revents&unix.POLLRDHUP != 0:
		return HalfClosed
	}
	return Open
}

// callWithAddress is bind(2) or connect(2).
func callWithAddress(call, fd uintptr, to netip.AddrPort) error {
	port := networkOrder(to.Port())
	at, size := unsafe.Pointer(nil), uintptr(0)
	if to.Addr().Is4() {
		sa := &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: to.Addr().As4()}
		at, size = unsafe.Pointer(sa), unsafe.Sizeof(*sa)
	} else {
		sa := &unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
		at, size = unsafe.Pointer(sa), unsafe.Sizeof(*sa)
	}
	if _, _, errno := syscall.RawSyscall(call, fd, uintptr(at), size); errno != 0 {
		return errno
	}
	return nil
}

// connected reports whether what connect began is done, or why it has failed.
func connected(fd uintptr) (bool, error) {
	var why int32
	size := uint32(unsafe.Sizeof(why))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&why)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return false, os.NewSyscallError("getsockopt", errno)
	}
	if why != 0 {
		return false, os.NewSyscallError("connect", syscall.Errno(why))
	}
	var peer unix.RawSockaddrAny // there is one once the connection is
	size = uint32(unsafe.Sizeof(peer))
	_, _, errno = syscall.RawSyscall(syscall.SYS_GETPEERNAME, fd, uintptr(unsafe.Pointer(&peer)), uintptr(unsafe.Pointer(&size)))
	return errno == 0, nil
}

// accept is accept4(2): a non-blocking socket, and the peer's address.
func accept(fd uintptr) (uintptr, net.Addr, syscall.Errno) {
	var peer unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(peer))
	s, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, fd, uintptr(unsafe.Pointer(&peer)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return 0, nil, errno
	}
	if peer.Addr.Family == unix.AF_UNIX {
		return s, &net.UnixAddr{Name: unixName(&peer), Net: "unix"}, 0
	}
	return s, net.TCPAddrFromAddrPort(addressOf(&peer)), 0
}

// ownAddress is our end's address of a TCP socket; the zero one when it has none.
func ownAddress(fd uintptr) netip.AddrPort {
	var own unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(own))
	if _, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, fd, uintptr(unsafe.Pointer(&own)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}
	}
	return addressOf(&own)
}

// addressOf is an IP address with its port as the kernel tells it. That of an IPv4 peer of an IPv6 socket is of IPv4.
func addressOf(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), networkOrder(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		ip := netip.AddrFrom16(in.Addr).Unmap()
		if in.Scope_id != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(in.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, networkOrder(in.Port))
	}
	return netip.AddrPort{}
}

// unixName is the name of a Unix socket as net has it: one that is no path begins with "@", and most have no more than that.
func unixName(sa *unix.RawSockaddrAny) string {
	path := (*unix.RawSockaddrUnix)(unsafe.Pointer(sa)).Path
	if path[0] == 0 {
		path[0] = '@'
	}
	return unix.ByteSliceToString(unsafe.Slice((*byte)(unsafe.Pointer(&path)), len(path)))
}

// networkOrder turns a port as it is in a socket's address into a number, or back.
func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// replace makes fd lead to where by leads, and closes what it led to.
func replace(fd, by uintptr) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_DUP3, by, fd, unix.O_CLOEXEC); errno != 0 {
		return os.NewSyscallError("dup3", errno)
	}
	return nil
}

// closeNow closes a socket that does not linger.
func closeNow(fd uintptr) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0); errno != 0 {
		return os.NewSyscallError("close", errno)
	}
	return nil
}

// epollControl is epoll_ctl(2).
func epollControl(set, how int, fd uintptr, event *unix.EpollEvent) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(set), uintptr(how), fd, uintptr(unsafe.Pointer(event)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// epollNow is epoll_wait(2) for what is there now.
func epollNow(set int, events []unix.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(set), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("epoll_wait", errno)
	}
	return int(n), nil
}
