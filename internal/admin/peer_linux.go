package admin

import (
	"net"
	"syscall"
)

// credentials are those that c was connected with (unix(7), SO_PEERCRED).
func credentials(c *net.UnixConn) (uid uint32, pid int32, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	var peer *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return 0, 0, false
	}
	return peer.Uid, peer.Pid, true
}
