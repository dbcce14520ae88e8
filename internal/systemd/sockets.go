package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Sockets returns the listening sockets that the service manager handed over,
// by the FileDescriptorName= of their units; several of one name stand in the
// order in which they were passed. What is no listening stream socket is
// closed and told in the problems, which never keep the others from being
// used. The variables are removed from the environment, so a second call finds
// nothing. The caller owns the listeners; closing one never unlinks its path.
func Sockets() (byName map[string][]net.Listener, problems []error) {
	if err := addressee(os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getpid()); err != nil {
		problems = append(problems, err)
	}
	files := activation.FilesWithNames() // unsets LISTEN_*
	byName, more := dispatch(files)
	return byName, append(problems, more...)
}

// addressee tells why sockets that the environment announces are not ours;
// nil when they are, or when there are none.
func addressee(pid, fds string, self int) error {
	if fds == "" || fds == "0" {
		return nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 {
		return fmt.Errorf("sockets of the service manager: LISTEN_FDS is %q, which is no number of them", fds)
	}
	p, err := strconv.Atoi(pid)
	if err != nil {
		return fmt.Errorf("sockets of the service manager: LISTEN_PID is %q, which is no process", pid)
	}
	if p != self {
		return fmt.Errorf("sockets of the service manager: they were passed to process %d and this is %d; "+
			"a script that starts the program has to end with exec", p, self)
	}
	return nil
}

// dispatch turns files into listeners by what each of them is. It closes them
// all: a listener has a descriptor of its own.
func dispatch(files map[string][]*os.File) (byName map[string][]net.Listener, problems []error) {
	byName = make(map[string][]net.Listener, len(files))
	seen := make(map[inode]string)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names) // problems come in the same order every time
	for _, name := range names {
		for _, f := range files[name] {
			ln, err := open(f, seen)
			_ = f.Close() // the manager keeps the socket; nothing was written
			if err != nil {
				problems = append(problems, fmt.Errorf("socket %q of the service manager: %w", name, err))
				continue
			}
			byName[name] = append(byName[name], ln)
		}
	}
	return byName, problems
}

// inode identifies a socket, whichever descriptor it is reached through.
type inode struct{ dev, ino uint64 }

// open makes a listener of f, which it leaves open. seen holds the name of
// every socket that became one.
func open(f *os.File, seen map[inode]string) (net.Listener, error) {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, errors.New("it is no socket")
	}
	id := inode{dev: st.Dev, ino: st.Ino}
	if name, twice := seen[id]; twice {
		return nil, fmt.Errorf("the same socket was passed before as %q", name)
	}
	if err := listening(fd); err != nil {
		return nil, err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	seen[id] = f.Name()
	return ln, nil
}

// listening says why fd is not a socket on which stream connections arrive.
func listening(fd int) error {
	get := func(opt int) (int, error) {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		return v, os.NewSyscallError("getsockopt", err)
	}
	kind, err := get(unix.SO_TYPE)
	if err != nil {
		return err
	}
	if kind != unix.SOCK_STREAM {
		return errors.New("it carries no streams; use ListenStream=")
	}
	accepts, err := get(unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if accepts == 0 {
		return errors.New("it is a connection, not a listening socket; use Accept=no")
	}
	domain, err := get(unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	protocol, err := get(unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	switch {
	case domain == unix.AF_UNIX:
		return nil
	case (domain == unix.AF_INET || domain == unix.AF_INET6) && (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP):
		return nil
	}
	return fmt.Errorf("it is neither TCP nor Unix (family %d, protocol %d)", domain, protocol)
}
