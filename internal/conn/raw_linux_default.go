//go:build linux && !race

package conn

import (
	"syscall"
	"unsafe"
)

const rawByDefault = true

// sysRead is recv(2), of which the runtime learns nothing: on a non-blocking descriptor it does not block.
func sysRead(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	return int(n), errno
}
