package conn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// bindLate keeps bind from taking a port. A system that does not know the option goes on with fewer ports.
func bindLate(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
