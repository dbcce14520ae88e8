//go:build linux && race

package conn

import (
	"errors"
	"syscall"
)

// rawByDefault is off: the race detector does not see raw system calls hand bytes over.
const rawByDefault = false

// sysRead is read(2) in a way that the race detector sees.
func sysRead(fd uintptr, b []byte) (int, syscall.Errno) {
	n, err := syscall.Read(int(fd), b)
	errno, _ := errors.AsType[syscall.Errno](err)
	return n, errno
}
