package systemd

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Inherited is what the service manager handed over at the start.
type Inherited struct {
	// Listeners are listening sockets, by the FileDescriptorName= of their
	// units; several of one name stand in the order in which they were passed.
	// Closing one never unlinks its path.
	Listeners map[string][]net.Listener

	// Connections are callers that the process before us left in the store, by
	// the listener that had accepted them. Each was alive when we looked. Adopt
	// gives them away; until then nobody reads from them.
	Connections map[string][]net.Conn

	// Problems tell what was neither, and was closed. They never keep the rest
	// from being used.
	Problems []error

	// stored are the names, each once, under which the store may have something.
	stored []string
}

// Inherit takes what the service manager handed over. The variables are
// removed from the environment, so a second call finds nothing.
func Inherit() *Inherited {
	in := &Inherited{Listeners: make(map[string][]net.Listener), Connections: make(map[string][]net.Conn)}
	var files map[string][]*os.File
	names, err := announced(os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"), os.Getpid())
	if err == nil {
		files, err = received(names)
	}
	if err != nil {
		in.Problems = append(in.Problems, fmt.Errorf("sockets of the service manager: %w", err))
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // cannot fail for a name without "=" and zero
	}
	in.dispatch(files)
	return in
}

// maxPassed is far more than a service manager passes: FileDescriptorStoreMax= and sockets.
const maxPassed = 1 << 16

// announced returns the names of the descriptors that the environment
// announces, in the order of their numbers, or says why they cannot be ours.
func announced(pid, fds, fdNames string, self int) (names []string, err error) {
	if fds == "" || fds == "0" {
		return nil, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxPassed {
		return nil, fmt.Errorf("LISTEN_FDS is %.80q, which is no number of them", fds)
	}
	p, err := strconv.Atoi(pid)
	if err != nil {
		return nil, fmt.Errorf("LISTEN_PID is %.80q, which is no process", pid)
	}
	if p != self {
		return nil, fmt.Errorf("they were passed to process %d and this is %d; a script that starts the program has to end with exec", p, self)
	}
	names = make([]string, n)
	if fdNames != "" {
		if names = strings.Split(fdNames, ":"); len(names) != n {
			return nil, fmt.Errorf("LISTEN_FDS announces %d of them and LISTEN_FDNAMES names %d; none is used", n, len(names))
		}
	}
	for i, name := range names {
		if name == "" {
			names[i] = "LISTEN_FD_" + strconv.Itoa(firstDescriptor+i)
		}
	}
	return names, nil
}

// firstDescriptor is SD_LISTEN_FDS_START.
const firstDescriptor = 3

// received returns the descriptors from the first one on, by name. If one of them
// is not open, or is one that this process opened itself, nothing is touched.
// Descriptors survive the start of a program without the flag to close them
// then, and the runtime opens none without it.
func received(names []string) (map[string][]*os.File, error) {
	for i := range names {
		flags, err := unix.FcntlInt(uintptr(firstDescriptor+i), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("LISTEN_FDS announces %d of them, and number %d was not passed; none is used", len(names), i+1)
		}
	}
	files := make(map[string][]*os.File)
	for i, name := range names {
		unix.CloseOnExec(firstDescriptor + i)
		files[name] = append(files[name], os.NewFile(uintptr(firstDescriptor+i), name))
	}
	return files, nil
}

// dispatch takes files by what each of them is. It closes them all: what was
// taken has a descriptor of its own.
func (in *Inherited) dispatch(files map[string][]*os.File) {
	seen := make(map[inode]string)
	for _, name := range slices.Sorted(maps.Keys(files)) { // problems come in the same order every time
		for _, f := range files[name] {
			err := in.take(name, f, seen)
			_ = f.Close() // the manager keeps the socket; nothing was written
			if err != nil {
				in.Problems = append(in.Problems, fmt.Errorf("socket %q of the service manager: %w", name, err))
			}
		}
	}
}

// inode identifies a socket, whichever descriptor it is reached through.
type inode struct{ dev, ino uint64 }

// take finds out what f is and keeps a duplicate of what we can use. seen holds
// the name of every socket that was taken.
func (in *Inherited) take(name string, f *os.File, seen map[inode]string) error {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		in.store(name)
		return errors.New("it is no socket")
	}
	id := inode{dev: st.Dev, ino: st.Ino}
	if name, twice := seen[id]; twice {
		return fmt.Errorf("the same socket was passed before as %q", name)
	}
	listens, err := stream(fd)
	if listens {
		if err != nil {
			return err
		}
		ln, err := net.FileListener(f)
		if err != nil {
			return err
		}
		in.Listeners[name] = append(in.Listeners[name], ln)
		seen[id] = name
		return nil
	}
	in.store(name)
	if err != nil {
		return err
	}
	listener, ok := strings.CutPrefix(name, connPrefix)
	if !ok || listener == "" {
		return errors.New("it is a connection, not a listening socket; use Accept=no")
	}
	if alive, err := connected(fd); !alive {
		return err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	in.Connections[listener] = append(in.Connections[listener], c)
	seen[id] = name
	return nil
}

// store notes that what has this name comes from the store. It may also be of
// a socket unit that asks for something odd; removing that does no harm.
func (in *Inherited) store(name string) {
	if isDescriptorName(name) && !slices.Contains(in.stored, name) {
		in.stored = append(in.stored, name)
	}
}

// connected reports whether the other end of a stream is still there, or has
// left us something to read. An error says that there never was one.
func connected(fd int) (bool, error) {
	for {
		n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return true, nil // idle
		case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.EINVAL):
			return false, errors.New("it is not connected")
		}
		return err == nil && n > 0, nil // a request waits; or the caller has hung up
	}
}

// stream reports whether connections arrive on fd, and says why we cannot use
// it: it has to be TCP or Unix, and a stream.
func stream(fd int) (listens bool, err error) {
	get := func(opt int) (int, error) {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		return v, os.NewSyscallError("getsockopt", err)
	}
	kind, err := get(unix.SO_TYPE)
	if err != nil {
		return false, err
	}
	if kind != unix.SOCK_STREAM {
		return false, errors.New("it carries no streams; use ListenStream=")
	}
	accepts, err := get(unix.SO_ACCEPTCONN)
	if err != nil {
		return false, err
	}
	listens = accepts != 0
	domain, err := get(unix.SO_DOMAIN)
	if err != nil {
		return listens, err
	}
	protocol, err := get(unix.SO_PROTOCOL)
	if err != nil {
		return listens, err
	}
	switch {
	case domain == unix.AF_UNIX:
		return listens, nil
	case (domain == unix.AF_INET || domain == unix.AF_INET6) && (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP):
		return listens, nil
	}
	return listens, fmt.Errorf("it is neither TCP nor Unix (family %d, protocol %d)", domain, protocol)
}
