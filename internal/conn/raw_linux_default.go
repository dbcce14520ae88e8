//go:build linux && !race

package conn

import (
	"syscall"
	"unsafe"
)

const rawByDefault = true

// sysRead is read(2), of which the runtime learns nothing: on a non-blocking descriptor it does not block.
func sysRead(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
