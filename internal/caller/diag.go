package caller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// diag asks the kernel about sockets of this network namespace: sock_diag(7). The kernel answers a question about one
// socket before the sending of it returns, so that there is nothing to wait for.
type diag struct {
	mu  sync.Mutex // guards the rest
	fd  int
	on  bool // fd is open
	seq uint32
	in  [4096]byte
}

// Lengths of linux/netlink.h and linux/inet_diag.h, and the attribute of the latter that we read.
const (
	lenHeader  = 16 // struct nlmsghdr
	lenRequest = 56 // struct inet_diag_req_v2
	lenSocket  = 72 // struct inet_diag_msg
	lenID      = 48 // struct inet_diag_sockid

	attrCgroup = 21 // INET_DIAG_CGROUP_ID, since Linux 5.9
)

// States of TCP in which a connection has two ends: net/tcp_states.h.
const (
	established = 1
	finWait1    = 4
	finWait2    = 5
	closeWait   = 8
)

func isConnected(state byte) bool {
	return state == established || state == finWait1 || state == finWait2 || state == closeWait
}

// owner is who has a socket.
type owner struct {
	uid    uint32
	cgroup uint64 // in which it was created; 0: not known
}

// socket tells of the socket at the other end of fd, a TCP connection of this host from remote to local.
func (l *Lookup) socket(fd int, remote, local netip.AddrPort, facts Facts) (Caller, error) {
	o, err := l.diag.ask(unmap(remote), unmap(local))
	if err != nil || o == nil {
		return Caller{}, err
	}
	// Had our end been reset before the kernel looked, another socket might have taken the place of the caller's. As long as
	// ours lives, no other can be connected from that address.
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || !isConnected(info.State) {
		return Caller{}, nil
	}
	var unit []byte
	if facts&Unit != 0 && o.cgroup != 0 {
		unit = l.cgroups.unit(o.cgroup)
	}
	return l.known(o.uid, unit), nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// ask returns who has the socket that is connected from one address to the other; nil: nobody whom we could name.
func (d *diag) ask(from, to netip.AddrPort) (*owner, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.exchange(from, to)
	if err != nil {
		d.hangUp() // whatever is still to come belongs to no question of ours
		return nil, fmt.Errorf("ask the kernel for the owner of a TCP socket: %w", err)
	}
	return o, nil
}

func (d *diag) exchange(from, to netip.AddrPort) (*owner, error) {
	if !d.on {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_INET_DIAG)
		if err != nil {
			return nil, fmt.Errorf("open a socket of AF_NETLINK, which RestrictAddressFamilies= of the unit has to permit: %w", err)
		}
		d.fd, d.on = fd, true
	}
	d.seq++
	if err := unix.Sendto(d.fd, request(from, to, d.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, err
	}
	for {
		n, sender, err := unix.Recvfrom(d.fd, d.in[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if s, ok := sender.(*unix.SockaddrNetlink); !ok || s.Pid != 0 {
			continue // not from the kernel
		}
		if o, ok, err := answer(d.in[:n], from, to, d.seq); ok {
			return o, err
		}
	}
}

// request asks for the one socket that is connected from one address to the other.
func request(from, to netip.AddrPort, seq uint32) []byte {
	b := make([]byte, lenHeader+lenRequest)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], seq)
	r := b[lenHeader:]
	r[0] = unix.AF_INET6
	if from.Addr().Is4() {
		r[0] = unix.AF_INET
	}
	r[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<32-1) // in any state
	id := r[8:]
	binary.BigEndian.PutUint16(id[0:], from.Port())
	binary.BigEndian.PutUint16(id[2:], to.Port())
	copy(id[4:20], from.Addr().AsSlice())
	copy(id[20:36], to.Addr().AsSlice())
	binary.NativeEndian.PutUint64(id[40:], 1<<64-1) // INET_DIAG_NOCOOKIE
	return b
}

// answer reads what the kernel said to question seq. False: it is about another one.
func answer(b []byte, from, to netip.AddrPort, seq uint32) (o *owner, ok bool, err error) {
	if len(b) < lenHeader || binary.NativeEndian.Uint32(b[8:]) != seq {
		return nil, false, nil
	}
	length := int(binary.NativeEndian.Uint32(b))
	if length < lenHeader || length > len(b) {
		return nil, true, fmt.Errorf("an answer of %d bytes says that it has %d", len(b), length)
	}
	kind, b := binary.NativeEndian.Uint16(b[4:]), b[lenHeader:length]
	switch {
	case kind == unix.NLMSG_ERROR && len(b) >= 4:
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b)))
		if errno == unix.ENOENT {
			return nil, true, nil // there is none here: its namespace is another, or it is gone
		}
		return nil, true, errno
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(b) < lenSocket:
		return nil, true, fmt.Errorf("an answer of type %d with %d bytes makes no sense", kind, len(b))
	}
	return ownerIn(b, from, to), true, nil
}

// ownerIn reads a struct inet_diag_msg and the attributes behind it. A socket that nobody holds any more reads as root's, and so
// does what is left of one in TIME_WAIT: nil. Where no such socket is connected, the kernel may have found one
// that listens on the port: nil.
func ownerIn(b []byte, from, to netip.AddrPort) *owner {
	family, state, id := b[0], b[1], b[4:4+lenID]
	inode := binary.NativeEndian.Uint32(b[68:])
	if !isConnected(state) || inode == 0 || addrPort(family, id[4:20], id[0:2]) != from || addrPort(family, id[20:36], id[2:4]) != to {
		return nil
	}
	o := &owner{uid: binary.NativeEndian.Uint32(b[64:])}
	for attrs := b[lenSocket:]; len(attrs) >= 4; {
		n, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if n < 4 || n > len(attrs) {
			break
		}
		if kind == attrCgroup && n >= 12 {
			o.cgroup = binary.NativeEndian.Uint64(attrs[4:])
		}
		attrs = attrs[min((n+3)&^3, len(attrs)):]
	}
	return o
}

func addrPort(family byte, addr, port []byte) netip.AddrPort {
	if family == unix.AF_INET {
		addr = addr[:4]
	}
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

func (d *diag) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hangUp()
}

func (d *diag) hangUp() {
	if d.on {
		_ = unix.Close(d.fd)
		d.on = false
	}
}
