package systemd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Connections of callers outlive a restart in the service manager's store of
// descriptors. At the stop:
//
//	Stopping, the drain, Room, the end of those for which there is none,
//	Store for each listener, Barrier, exit
//
// and at the next start, once it is certain that we serve:
//
//	Inherit, …, Adopt, and only then a first read from one of them
//
// Nothing that still has to be served may be left when Store is called: a
// thousand connections keep systemd busy for up to a second and a half, and what
// is sent to us meanwhile on any other is lost.
const (
	// connPrefix and the name of a listener are what its connections are stored
	// as. A listening socket may have such a name as well: what a descriptor is,
	// and not its name alone, says which of both it is.
	connPrefix = "conn."

	// maxNameBytes is how long the name of a descriptor may be.
	maxNameBytes = 255

	// maxDescriptors is how many the kernel passes with one message.
	maxDescriptors = 253

	// unitRoom is FileDescriptorStoreMax= of our unit: what we go by where the
	// service manager does not say (FDSTORE came with version 254). Of those
	// that are too many it closes its duplicates and tells nobody but its log.
	unitRoom = 1024
)

// storeRoom reads FDSTORE.
func storeRoom(fdstore string) int {
	n, err := strconv.Atoi(fdstore)
	if err != nil || n < 0 {
		return unitRoom
	}
	return n
}

// Room is how many more connections the service manager will keep. Where a
// version before 254 was told another FileDescriptorStoreMax= than our unit's,
// the unit has to set FDSTORE as well, or callers lose what they send on those
// that are too many.
func (n *Notify) Room() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addr == "" {
		return 0
	}
	return n.room - n.stored
}

// Store has the service manager keep connections of a listener for the next
// process: at most Room of them, those in front first. Closed ones are left
// out. It returns how many were sent, also beside an error.
//
// They have to be idle, with not a byte of the next request read. The caller
// still owns its own descriptors, and closes them without shutting them down;
// it neither reads nor writes any more, even when there was an error: what the
// service manager has cannot be known then. Before the process ends, Barrier
// makes certain.
func (n *Notify) Store(listener string, conns []syscall.Conn) (stored int, err error) {
	name := connPrefix + listener
	if listener == "" || !isDescriptorName(name) {
		return 0, fmt.Errorf("keep connections of listener %q: the service manager takes no such name", listener)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(conns) > 0 && n.addr != "" && n.stored < n.room {
		batch := conns[:min(len(conns), maxDescriptors, n.room-n.stored)]
		conns = conns[len(batch):]
		var sent int
		held(batch, nil, func(fds []int) {
			if len(fds) == 0 {
				return
			}
			if err = n.send("FDSTORE=1\nFDNAME="+name, fds...); err == nil {
				sent = len(fds)
			}
		})
		n.stored += sent
		stored += sent
		if err != nil {
			return stored, fmt.Errorf("keep connections of listener %q: %w", listener, err)
		}
	}
	return stored, nil
}

// held calls f with fds and the descriptors of conns, none of which is closed
// until f returns. It leaves out those that were closed before. Nothing is
// duplicated or changed: File would take O_NONBLOCK from the connection, too.
func held(conns []syscall.Conn, fds []int, f func(fds []int)) {
	if len(conns) == 0 {
		f(fds)
		return
	}
	first, rest := conns[0], conns[1:]
	called := false
	if raw, err := first.SyscallConn(); err == nil {
		// The error is that of a closed connection; then nothing was called.
		_ = raw.Control(func(fd uintptr) {
			called = true
			held(rest, append(fds, int(fd)), f)
		})
	}
	if !called {
		held(rest, fds, f)
	}
}

// isDescriptorName is systemd's own rule for FDNAME=.
func isDescriptorName(name string) bool {
	return len(name) <= maxNameBytes &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f || r == ':' })
}

// Barrier waits until the service manager has worked off all that it was told
// before, or ctx ends. When it fails, what was stored is most likely kept all
// the same: it stays in the service manager's queue.
func (n *Notify) Barrier(ctx context.Context) error {
	if n.addr == "" {
		return nil
	}
	// The service manager closes its duplicate of the writing end when it comes
	// to the message; ours is closed before we wait.
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	defer r.Close()
	n.mu.Lock()
	held([]syscall.Conn{w}, nil, func(fds []int) { err = n.send("BARRIER=1", fds...) })
	n.mu.Unlock()
	_ = w.Close() // nothing was written
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })()
	_, err = r.Read(make([]byte, 1))
	switch {
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("wait for the service manager: %w", context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	return nil // the end of the pipe
}

// Adopt has the service manager forget the stored connections and then offers
// each to take, which owns it if it returns true. What take does not want, since
// its listener has left or changed, is hung up. Adopt returns how many were taken.
//
// It comes before the first byte is read from any of them: if we crash later,
// no other process finds half an exchange. And it comes after all that can keep
// this process from serving: until then they wait in the store for the next one.
// When the service manager cannot be told, none is offered and all are hung up:
// while it has a duplicate, a connection that we close would stay open, and its
// caller would wait for an answer for ever.
func (n *Notify) Adopt(in *Inherited, take func(listener string, c net.Conn) bool) (taken int, err error) {
	connections := in.Connections
	in.Connections = nil
	err = n.remove(in.stored)
	for _, listener := range slices.Sorted(maps.Keys(connections)) {
		for _, c := range connections[listener] {
			if err == nil && take(listener, c) {
				taken++
				continue
			}
			hangUp(c)
		}
	}
	return taken, err
}

// remove empties the store of what is there by these names.
func (n *Notify) remove(names []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		if err := n.send("FDSTOREREMOVE=1\nFDNAME=" + name); err != nil {
			return fmt.Errorf("take over stored connections: %w", err)
		}
	}
	return nil
}

// hangUp closes c, and for the caller as well where somebody has a duplicate.
func hangUp(c net.Conn) {
	// What fails here was hung up by the caller.
	if half, ok := c.(interface {
		CloseWrite() error
		CloseRead() error
	}); ok {
		_ = half.CloseWrite()
		_ = half.CloseRead()
	}
	_ = c.Close()
}
