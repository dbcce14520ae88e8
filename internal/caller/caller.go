// Package caller tells who is at the other end of a connection on this host: its user, and its systemd unit.
package caller

import (
	"errors"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Facts is what can be asked about a caller.
type Facts uint8

// The facts.
const (
	User Facts = 1 << iota
	Unit
)

// Caller is who is at the other end of a connection. What could not be found out is empty, never guessed. What its slices
// hold belongs to all callers that have it in common and is not to be changed.
type Caller struct {
	UID  uint32 // means something where User is not empty
	User []byte // "uid:1000": no other user of this host has it
	Unit []byte // "billing.service" of the system's manager, "user:1000/app.service" of a user's
}

// Has returns which of the facts are known.
func (c *Caller) Has() (known Facts) {
	if len(c.User) > 0 {
		known |= User
	}
	if len(c.Unit) > 0 {
		known |= Unit
	}
	return known
}

// Conn is a connection that was accepted from a caller.
type Conn interface {
	syscall.Conn
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// Lookup finds out who callers are. All methods may be called concurrently, Close after all others.
type Lookup struct {
	diag    diag
	cgroups cgroups
	names   names
	users   users
}

// NewLookup returns a Lookup. It opens nothing until it is asked something.
func NewLookup() *Lookup {
	return &Lookup{cgroups: cgroups{root: cgroupRoot()}, users: usersOfNamespace()}
}

// Close lets go of what was opened.
func (l *Lookup) Close() { l.diag.close() }

// Of asks the kernel for facts about the caller of c. On a Unix socket they are those of the process that connected; over
// TCP those of the socket's creation, by whichever process. A caller in another network namespace stays unknown, and
// so does one on another host.
//
// The error says why nobody can be looked up, as when a sandbox forbids it. It is nil where one caller is not known.
func (l *Lookup) Of(c Conn, facts Facts) (who Caller, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return who, err
	}
	remote, tcp := c.RemoteAddr().(*net.TCPAddr)
	failed := raw.Control(func(fd uintptr) {
		if !tcp {
			who = l.process(int(fd), facts)
			return
		}
		if local, ok := c.LocalAddr().(*net.TCPAddr); ok && isOurs(remote, local) {
			who, err = l.socket(int(fd), remote.AddrPort(), local.AddrPort(), facts)
		}
	})
	if failed != nil { // c was closed
		return Caller{}, nil
	}
	return who, err
}

// Holds reports whether a process of this host still has the other end of c, a TCP connection: a socket that was half-closed has an
// owner, one that was closed has none. Of a connection from elsewhere, and where the kernel cannot be asked, nothing is known: false.
func (l *Lookup) Holds(c Conn) bool {
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	local, ok2 := c.LocalAddr().(*net.TCPAddr)
	if !ok || !ok2 || !isOurs(remote, local) {
		return false
	}
	o, err := l.diag.ask(unmap(remote.AddrPort()), unmap(local.AddrPort()))
	return err == nil && o != nil
}

// known makes a Caller of what the kernel said; an empty unit was not asked for, or is not known.
func (l *Lookup) known(uid uint32, unit []byte) Caller {
	if l.users.hides(uid) {
		return Caller{Unit: unit}
	}
	return Caller{UID: uid, User: strconv.AppendUint([]byte("uid:"), uint64(uid), 10), Unit: unit}
}

// process tells of the process that connected to a Unix socket.
func (l *Lookup) process(fd int, facts Facts) Caller {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Caller{}
	}
	var unit []byte
	if facts&Unit != 0 && cred.Pid > 0 { // 0: in a PID namespace that is not below ours
		unit = l.unitOfPeer(fd, cred)
	}
	return l.known(cred.Uid, unit)
}

// unitOfPeer returns the unit in which the process that connected is now. A number of a process is somebody else's as soon as
// that process has ended; its descriptor is not.
func (l *Lookup) unitOfPeer(fd int, cred *unix.Ucred) []byte {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil { // Linux before 6.5, or the process has ended
		return nil
	}
	defer func() { _ = unix.Close(pidfd) }()
	if !l.cgroups.bySearch {
		id, err := cgroupOf(pidfd)
		switch {
		case err == nil:
			return l.cgroups.unit(id)
		case !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL): // as Linux before 6.13 says
			return nil
		}
	}
	unit := l.cgroups.unitOfProcess(int(cred.Pid), cred.Uid)
	if hasEnded(pidfd) {
		return nil // the number may have been another's when we looked
	}
	return unit
}
