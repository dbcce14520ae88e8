// Package listener turns addresses and inherited sockets into the named
// sockets on which callers arrive, and carries them from one generation of the
// configuration to the next.
package listener

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultUnixMode is the mode of a Unix socket whose Spec names none.
const DefaultUnixMode os.FileMode = 0o660

// Spec is what the configuration says about one listener.
type Spec struct {
	Name string

	// Addresses are "127.0.0.1:8080", "[::1]:8080", ":8080" for all of the
	// machine's, "localhost:8080" for both loopback addresses, or
	// "unix:/run/ledger.sock". Sockets inherited under Name replace them.
	Addresses []string

	UnixMode  os.FileMode // 0 means DefaultUnixMode
	UnixGroup string      // name or number; "" means that of this process
}

// Acceptor is what both kinds of listening socket can do: *net.TCPListener and
// *net.UnixListener. A deadline in the past ends Accept and leaves the socket
// open, which is how one stops accepting while the kernel, for the sake of the
// service manager, goes on queueing callers.
type Acceptor interface {
	net.Listener
	SetDeadline(time.Time) error
	SyscallConn() (syscall.RawConn, error)
}

// Socket is one listening socket of a listener.
type Socket struct {
	Name      string // of the listener
	Address   string // as configured, or that of the inherited socket
	Inherited bool   // from the service manager
	Acceptor

	// file is the path of a Unix socket that we bound; nil for every other,
	// and once the path was handed on to another Socket.
	file atomic.Pointer[socketFile]
}

// Close closes a socket that we bound and removes its path, if what is there
// is still ours. An inherited one stays as it is: the service manager's copy
// outlives this process, and callers go on queueing there.
func (s *Socket) Close() error {
	if s.Inherited {
		return nil
	}
	if f := s.file.Swap(nil); f != nil {
		f.remove()
	}
	return s.Acceptor.Close()
}
