package listener

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Set is the sockets in service. It changes as a whole, by a Change that
// Prepare begins and Commit or Abort ends.
type Set struct {
	inherited map[string][]*Socket // fixed from the start

	mu       sync.Mutex
	current  map[string][]*Socket // replaced by Commit, never edited
	changing bool                 // between Prepare and its Commit or Abort
}

// NewSet returns a Set that serves nothing yet. The inherited sockets are its
// own from now on; they stay open for as long as the process lives.
func NewSet(inherited map[string][]net.Listener) *Set {
	s := &Set{inherited: make(map[string][]*Socket, len(inherited))}
	for name, lns := range inherited {
		for _, ln := range lns {
			acceptor, _ := ln.(Acceptor) // Prepare refuses any other
			s.inherited[name] = append(s.inherited[name], &Socket{
				Name: name, Address: address(ln.Addr()), Inherited: true, Acceptor: acceptor,
			})
		}
	}
	return s
}

// Sockets returns the sockets in service, by name and then as configured.
func (s *Set) Sockets() []*Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Socket
	for _, name := range slices.Sorted(maps.Keys(s.current)) {
		all = append(all, s.current[name]...)
	}
	return all
}

// Close closes every socket that we bound. Nothing may be accepting on them.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, socks := range s.current {
		for _, sock := range socks {
			errs = append(errs, sock.Close())
		}
	}
	s.current = nil
	return errors.Join(errs...)
}

// Change is a next state of a Set whose sockets are all bound. Until Commit
// nobody accepts on the new ones, and the old ones serve on.
type Change struct {
	set      *Set
	now      map[string][]*Socket
	fresh    []*Socket           // opened by this Change
	moved    map[*Socket]*Socket // from a name that goes to the one that takes its address over
	undo     []func()            // gives kept Unix sockets their permissions back
	warnings []string
}

// Prepare binds what specs ask for and is not in service yet, keeps what stays
// as it is, and closes nothing. On error it has closed again what it bound, and
// the error names every address that could not be had. One Change at a time.
func (s *Set) Prepare(specs []Spec) (*Change, error) {
	s.mu.Lock()
	if s.changing {
		s.mu.Unlock()
		return nil, errors.New("listeners: another change is not finished yet")
	}
	s.changing = true
	current := s.current
	s.mu.Unlock()

	c := &Change{set: s, now: make(map[string][]*Socket, len(specs)), moved: make(map[*Socket]*Socket)}
	passed, errs := s.passed()
	warnings, wrong := Judge(specs, passed)
	c.warnings, errs = warnings, append(errs, wrong...)
	if len(errs) == 0 {
		for _, spec := range specs {
			errs = append(errs, c.prepare(spec, current)...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}

// Judge compares specs with the sockets that the service manager passes, which are addresses by name, and binds nothing.
// An error is a name or an address used twice, a listener that nothing leads to, or a socket that no listener accepts on:
// its callers would wait for ever. A warning is an address that a passed socket replaces.
func Judge(specs []Spec, passed map[string][]string) (warnings []string, errs []error) {
	names := make([]string, 0, len(specs))
	owner := make(map[string]string)
	for _, spec := range specs {
		if slices.Contains(names, spec.Name) {
			errs = append(errs, fmt.Errorf("listener %q: it is there twice", spec.Name))
		}
		names = append(names, spec.Name)
		places, err := parse(spec)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if in := passed[spec.Name]; len(in) > 0 {
			for _, p := range places {
				if !slices.Contains(in, p.address) && !slices.Contains(in, p.tcp.String()) {
					warnings = append(warnings, fmt.Sprintf("listener %q: address %s has no effect: systemd listens on %s for it; "+
						"change ListenStream= of its socket unit", spec.Name, p.address, strings.Join(in, " ")))
				}
			}
			continue
		}
		if len(spec.Addresses) == 0 {
			errs = append(errs, fmt.Errorf("listener %q: it has no address, and the service manager passes no socket of that name", spec.Name))
		}
		for _, p := range places {
			if first, taken := owner[p.address]; taken && !p.anyPort {
				errs = append(errs, fmt.Errorf("listener %q: %s is an address of listener %q already", spec.Name, p.address, first))
			}
			owner[p.address] = spec.Name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(passed)) {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("socket %q of the service manager (%s): no listener has that name; configured: %s; "+
				"add [listener.%s] to the configuration, or set FileDescriptorName= in the socket unit to a listener's name",
				name, strings.Join(passed[name], " "), quoted(names), key(name)))
		}
	}
	return warnings, errs
}

// passed is the inherited sockets as Judge wants them.
func (s *Set) passed() (sockets map[string][]string, errs []error) {
	sockets = make(map[string][]string, len(s.inherited))
	for _, name := range slices.Sorted(maps.Keys(s.inherited)) {
		for _, in := range s.inherited[name] {
			sockets[name] = append(sockets[name], in.Address)
			if in.Acceptor == nil {
				errs = append(errs, fmt.Errorf("listener %q: the inherited socket %s is neither TCP nor Unix", name, in.Address))
			}
		}
	}
	return sockets, errs
}

// prepare adds the sockets of one listener to the Change.
func (c *Change) prepare(spec Spec, current map[string][]*Socket) (errs []error) {
	if in := c.set.inherited[spec.Name]; len(in) > 0 {
		c.now[spec.Name] = in
		return nil
	}
	places, err := parse(spec)
	if err != nil {
		return []error{err}
	}
	gid, err := lookupGroup(spec.UnixGroup)
	if err != nil {
		return []error{fmt.Errorf("listener %q: %w", spec.Name, err)}
	}
	for _, p := range places {
		sock, err := c.socket(spec.Name, p, permissions{mode: spec.UnixMode, gid: gid}, current)
		if err != nil {
			if p.optional && unavailable(err) {
				continue
			}
			errs = append(errs, fmt.Errorf("listener %q: bind %s: %w%s", spec.Name, p.address, err, c.set.hint(err, p, current)))
			continue
		}
		c.now[spec.Name] = append(c.now[spec.Name], sock)
	}
	return errs
}

// socket returns the one in service at p, the same one under its new name, or
// a new one.
func (c *Change) socket(name string, p place, perm permissions, current map[string][]*Socket) (*Socket, error) {
	old := at(current, name, p.address)
	if old != nil {
		if f := old.file.Load(); f != nil && !f.ours() {
			old = nil // somebody removed the path, and callers with it
		}
	}
	if old == nil {
		sock := &Socket{Name: name, Address: p.address}
		var err error
		if sock.Acceptor, err = p.bind(perm, &sock.file); err != nil {
			return nil, err
		}
		c.fresh = append(c.fresh, sock)
		return sock, nil
	}
	if f := old.file.Load(); f != nil {
		undo, err := f.apply(perm)
		if err != nil {
			return nil, err
		}
		c.undo = append(c.undo, undo)
	}
	if old.Name == name {
		return old, nil
	}
	// A descriptor of its own, so that the two names' loops end and begin
	// independently of each other.
	dup, err := duplicate(old.Acceptor)
	if err != nil {
		return nil, err
	}
	sock := &Socket{Name: name, Address: p.address, Acceptor: dup}
	c.fresh = append(c.fresh, sock)
	c.moved[old] = sock
	return sock, nil
}

// at finds what we bound at address, the listener of that name first.
func at(current map[string][]*Socket, name, address string) *Socket {
	for _, n := range append([]string{name}, slices.Sorted(maps.Keys(current))...) {
		for _, s := range current[n] {
			if s.Address == address && !s.Inherited {
				return s
			}
		}
	}
	return nil
}

// Warnings are what the operator should know although the Change is possible.
func (c *Change) Warnings() []string { return c.warnings }

// Commit puts the sockets of the Change into service and returns them by
// listener, those that stayed being the same pointers as before. left are the
// ones that are out of service: stop accepting on them, then close them.
func (c *Change) Commit() (now map[string][]*Socket, left []*Socket) {
	s := c.set
	s.mu.Lock()
	defer s.mu.Unlock()
	for old, sock := range c.moved {
		sock.file.Store(old.file.Swap(nil))
	}
	for _, name := range slices.Sorted(maps.Keys(s.current)) {
		for _, sock := range s.current[name] {
			if !sock.Inherited && !slices.Contains(c.now[name], sock) {
				left = append(left, sock)
			}
		}
	}
	s.current, s.changing = c.now, false
	return maps.Clone(c.now), left
}

// Moved reports whether old, which left, goes on under another name, which then accepts the connections in its backlog.
func (c *Change) Moved(old *Socket) bool { return c.moved[old] != nil }

// Abort closes what Prepare bound; the Set is as it was.
func (c *Change) Abort() {
	for _, undo := range slices.Backward(c.undo) {
		undo()
	}
	for _, sock := range c.fresh {
		_ = sock.Close() // nobody has used it
	}
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	c.set.changing = false
}

// hint says what to do about err, for the person who reads it; "" when err
// says enough.
func (s *Set) hint(err error, p place, current map[string][]*Socket) string {
	switch {
	case p.path != "" && errors.Is(err, syscall.ENOENT):
		return fmt.Sprintf("; the folder %s has to be there", filepath.Dir(p.path))
	case p.path != "" && errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("; the folder %s is not open to this user for writing", filepath.Dir(p.path))
	case p.path != "":
		return "" // the error says what is there
	case errors.Is(err, syscall.EADDRINUSE):
		for _, ours := range []map[string][]*Socket{current, s.inherited} {
			for _, name := range slices.Sorted(maps.Keys(ours)) {
				for _, sock := range ours[name] {
					if p.overlaps(sock) {
						return fmt.Sprintf("; listener %q of this service has %s: restart, or make the change in two reloads", name, sock.Address)
					}
				}
			}
		}
		return fmt.Sprintf("; `ss -ltnp 'sport = :%d'` shows who has it", p.tcp.Port())
	case errors.Is(err, syscall.EACCES) && p.tcp.Port() < 1024:
		return "; ports below 1024 are for root: let a socket unit listen there, with FileDescriptorName= set to the listener's name"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; no interface of this machine has that address"
	}
	return ""
}

// address is how a socket's own address is written in the configuration.
func address(a net.Addr) string {
	if a.Network() == "unix" {
		return unixPrefix + a.String()
	}
	return a.String()
}

// key is name as TOML wants it in the name of a table.
func key(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return strconv.Quote(name)
	}
	return name
}

func quoted(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(all, ", ")
}
