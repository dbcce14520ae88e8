package listener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeTimeout bounds the question whether anybody answers on a socket file.
const probeTimeout = time.Second

// permissions are those of a Unix socket's file, which decide who may connect.
type permissions struct {
	mode os.FileMode // 0 means DefaultUnixMode
	gid  int
}

// socketFile is the file of a Unix socket that we bound.
type socketFile struct {
	path     string
	dev, ino uint64
}

// bindUnix listens at path. A file of a socket on which nobody answers any more
// is replaced; everything else that is there stays and is an error. Nobody but
// our own user can connect before the permissions are complete.
func bindUnix(path string, perm permissions) (*net.UnixListener, *socketFile, error) {
	if err := clearStale(path); err != nil {
		return nil, nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			// Linux gives the file that bind makes the mode of the socket, less
			// the umask, which is the whole process's and therefore not ours to set.
			err = os.NewSyscallError("fchmod", unix.Fchmod(int(fd), 0o600))
		}); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path) // nothing is resolved, so nothing can be cancelled
	if err != nil {
		return nil, nil, cause(err)
	}
	ln := l.(*net.UnixListener)
	ln.SetUnlinkOnClose(false) // by path alone; socketFile looks whose it is
	f, err := identify(path)
	if err == nil {
		_, err = f.apply(perm)
	}
	if err != nil {
		if f != nil {
			f.remove()
		}
		_ = ln.Close()
		return nil, nil, err
	}
	return ln, f, nil
}

// identify remembers which file bind has made at path.
func identify(path string) (*socketFile, error) {
	f := &socketFile{path: path}
	fd, st, err := f.open()
	if err != nil {
		return nil, err
	}
	_ = unix.Close(fd)
	f.dev, f.ino = st.Dev, st.Ino
	return f, nil
}

// open returns a descriptor of the file itself, never of what a link that
// somebody put there points to.
func (f *socketFile) open() (int, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Open(f.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, &fs.PathError{Op: "open", Path: f.path, Err: err}
	}
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, st, &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		_ = unix.Close(fd)
		return -1, st, fmt.Errorf("%s was replaced by something that is no socket", f.path)
	}
	return fd, st, nil
}

// apply gives the file its permissions and returns how to take that back. At no
// time may anybody connect who may do so neither before nor after.
func (f *socketFile) apply(perm permissions) (undo func(), err error) {
	if perm.mode == 0 {
		perm.mode = DefaultUnixMode
	}
	fd, st, err := f.open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if st.Dev != f.dev || st.Ino != f.ino {
		return nil, fmt.Errorf("%s is no longer the socket that was bound here", f.path)
	}
	before := permissions{mode: os.FileMode(st.Mode & 0o777), gid: int(st.Gid)}
	if before == perm {
		return func() {}, nil
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if before.gid != perm.gid {
		if err := os.Chmod(self, before.mode&perm.mode); err != nil {
			return nil, fmt.Errorf("narrow the mode of %s: %w", f.path, cause(err))
		}
		if err := unix.Fchownat(fd, "", -1, perm.gid, unix.AT_EMPTY_PATH); err != nil {
			_ = os.Chmod(self, before.mode)
			return nil, fmt.Errorf("give %s to group %s: %w%s", f.path, groupName(perm.gid), err, whyNotGiven(err, perm.gid))
		}
	}
	if err := os.Chmod(self, perm.mode); err != nil {
		return nil, fmt.Errorf("set the mode of %s: %w", f.path, cause(err))
	}
	return func() { _, _ = f.apply(before) }, nil
}

// whyNotGiven is a hint for when the kernel refused a change of the group.
func whyNotGiven(err error, gid int) string {
	groups, e := os.Getgroups()
	switch {
	case !errors.Is(err, syscall.EPERM) || e != nil:
		return ""
	case gid == os.Getegid() || slices.Contains(groups, gid):
		return "; under systemd, SystemCallFilter= has to allow fchownat"
	}
	return "; only a member of that group can: usermod -aG GROUP USER, then restart the service"
}

// ours reports whether the path still leads to the socket we bound.
func (f *socketFile) ours() bool {
	dev, ino, err := lstat(f.path)
	return err == nil && dev == f.dev && ino == f.ino
}

// remove unlinks the path if the file there is still the one we bound.
func (f *socketFile) remove() {
	if f.ours() {
		_ = os.Remove(f.path) // a path that stays is found stale by the next who binds
	}
}

// clearStale makes room at path, if what is there is a socket and the kernel
// says that nobody listens on it.
func clearStale(path string) error {
	dev, ino, err := lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("unix", path, probeTimeout)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("another process answers there: %w", syscall.EADDRINUSE)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("a socket is there and it cannot be told whether anybody answers: %w", cause(err))
	}
	// Once more, as another process may have been faster.
	if d, i, err := lstat(path); err != nil || d != dev || i != ino {
		return fmt.Errorf("another process has just put a socket there: %w", syscall.EADDRINUSE)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", cause(err))
	}
	return nil
}

// lstat identifies the socket at path. That something is there which is no
// socket is an error.
func lstat(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, 0, fmt.Errorf("a file that is no socket is there; it is not touched: %w", syscall.EEXIST)
	}
	return st.Dev, st.Ino, nil
}

// lookupGroup returns the number of a group. No name means our own, whatever group the folder gives to what is made in it.
func lookupGroup(name string) (gid int, err error) {
	if name == "" {
		return os.Getegid(), nil
	}
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		if _, ok := errors.AsType[user.UnknownGroupError](err); ok {
			return 0, fmt.Errorf("there is no group %q", name)
		}
		return 0, fmt.Errorf("look up group %q: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// groupName is for messages only.
func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return strconv.Quote(g.Name)
	}
	return strconv.Itoa(gid)
}
