package caller

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidfdInfo is struct pidfd_info of linux/pidfd.h in its first version, which all kernels accept that know it.
type pidfdInfo struct {
	mask   uint64 // what is asked for, then what was answered
	cgroup uint64
	_      [12]uint32 // ids, and how it ended
}

const (
	pidfdInfoCgroup = 1 << 2 // PIDFD_INFO_CGROUPID

	// pidfdGetInfo is PIDFD_GET_INFO, whose number holds the size of its argument.
	pidfdGetInfo = 3<<30 | unsafe.Sizeof(pidfdInfo{})<<16 | 0xff<<8 | 11
)

// cgroupOf returns the number of the cgroup that a process is in: ESRCH when that has ended, ENOTTY where the kernel
// cannot tell.
func cgroupOf(pidfd int) (id uint64, err error) {
	info := pidfdInfo{mask: pidfdInfoCgroup}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	switch {
	case errno != 0:
		return 0, errno
	case info.mask&pidfdInfoCgroup == 0:
		return 0, unix.ENOTTY
	}
	return info.cgroup, nil
}

// hasEnded reports whether a process has ended. Its number is not given to another before.
func hasEnded(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err != nil || n > 0
}
