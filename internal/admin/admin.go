// Package admin is the operators' HTTP surface: what the proxy is doing, over
// loopback TCP, and the one place to change it, a Unix socket.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mtls-proxy/mtls-proxy/internal/listener"
)

const (
	// DefaultSocket is where the Unix socket is when nothing else is configured.
	DefaultSocket = "/run/mtls-proxy/admin.sock"

	// DefaultGroup is the group whose members may use the Unix socket.
	DefaultGroup = "mtls-proxy-admin"
)

// Options is what a Server shows and does. All functions are called by many
// goroutines at once.
type Options struct {
	Metrics http.Handler                    // /metrics
	Status  func() any                      // /status, made JSON
	Ready   func() (ok bool, reason string) // /readyz

	// Reload does what POST /reload on the Unix socket asks for. Its context
	// ends with the Server, not when its caller hangs up: half a reload helps
	// nobody.
	Reload func(ctx context.Context) ReloadResult

	// Endpoint does what POST /endpoint/drain and /endpoint/resume on the Unix
	// socket ask for.
	Endpoint func(ctx context.Context, change EndpointChange) EndpointResult

	// Report hears what went wrong while serving. nil drops it.
	Report func(err error)
}

// Settings is what the configuration says; it may change with every reload.
type Settings struct {
	Address string // of TCP, "IP:PORT"; "" for none
	Socket  string // path of the Unix socket; "" for none

	// SocketOptional says that nobody asked for this Socket: that it cannot be
	// bound is a warning then, and an error otherwise.
	SocketOptional bool

	Group string            // may use the Unix socket; "" means DefaultGroup, if it exists
	Users map[string]string // bcrypt hashes by name
	Open  []string          // paths that need no password
	TLS   *tls.Config       // of TCP; nil for none
}

// ReloadResult is the verdict on one reload, as it goes over the socket.
type ReloadResult struct {
	OK         bool     `json:"ok"`
	Generation uint64   `json:"generation"`         // the one that serves now, new or old
	Error      string   `json:"error,omitempty"`    // why it was refused, in one line
	Problems   []string `json:"problems,omitempty"` // "file:line:column: key: fact", with hints
	Warnings   []string `json:"warnings,omitempty"`
}

// Stats counts since the start.
type Stats struct {
	AuthFailures uint64 // wrong user or password
	AuthBusy     uint64 // turned away while too many passwords were being checked
	Denied       uint64 // refused by the browser guard
}

// Server is the surface. New makes it, a Change gives it its addresses, Serve
// answers there.
type Server struct {
	options Options
	tcp     *listener.Set
	unix    *listener.Set
	gate    *gate // over all generations: a reload is no way around it
	current atomic.Pointer[generation]
	changed chan struct{} // holds one token when sockets came or went

	mu   sync.Mutex
	left []*listener.Socket // out of service, for Serve to close

	authFailures, authBusy, denied atomic.Uint64
}

// New returns a Server that listens nowhere yet.
func New(o Options) *Server {
	if o.Report == nil {
		o.Report = func(error) {}
	}
	s := &Server{
		options: o,
		tcp:     listener.NewSet(nil),
		unix:    listener.NewSet(nil),
		gate:    newGate(),
		changed: make(chan struct{}, 1),
	}
	s.current.Store(&generation{passwords: newPasswords(nil, s.gate)})
	return s
}

// Stats returns what was counted so far.
func (s *Server) Stats() Stats {
	return Stats{AuthFailures: s.authFailures.Load(), AuthBusy: s.authBusy.Load(), Denied: s.denied.Load()}
}

// Addresses returns where the Server listens, a Unix socket as "unix:/path".
func (s *Server) Addresses() []string {
	var all []string
	for _, sock := range s.tcp.Sockets() {
		all = append(all, sock.Addr().String())
	}
	for _, sock := range s.unix.Sockets() {
		all = append(all, sock.Address)
	}
	return all
}

// Change is the next Settings, checked and bound. It ends with Commit or Abort.
type Change struct {
	server    *Server
	next      *generation
	tcp, unix *listener.Change
	warnings  []string
}

// Prepare checks next and binds what is not bound yet; what serves goes on
// serving. A TCP port that another process has is a
// warning, unless a reload moves a working surface there.
func (s *Server) Prepare(next Settings) (*Change, error) {
	prev := s.current.Load()
	g, err := compile(next, prev, s.gate)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	c := &Change{server: s, next: g}
	if err := c.bindUnix(); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	moves := len(s.tcp.Sockets()) > 0 && next.Address != prev.settings.Address
	if err := c.bindTCP(moves); err != nil {
		c.unix.Abort()
		return nil, fmt.Errorf("admin: %w", err)
	}
	return c, nil
}

// bindUnix binds the Unix socket for the group that may use it, or for our own
// user alone where there is no such group or we may not give files to it.
func (c *Change) bindUnix() (err error) {
	set := c.next.settings
	if set.Socket == "" {
		c.unix, err = c.server.unix.Prepare(nil)
		return err
	}
	group := set.Group
	if group == "" {
		if _, err := user.LookupGroup(DefaultGroup); err == nil {
			group = DefaultGroup
		}
	}
	private := listener.Spec{Name: "admin", Addresses: []string{"unix:" + set.Socket}, UnixMode: 0o600}
	spec := private
	if group != "" {
		spec.UnixMode, spec.UnixGroup = 0o660, group
	}
	c.unix, err = c.server.unix.Prepare([]listener.Spec{spec})
	if group != "" && set.Group == "" && errors.Is(err, syscall.EPERM) {
		c.warnings = append(c.warnings, fmt.Sprintf("admin: %v; until then only root and the service's own user may use it", err))
		c.unix, err = c.server.unix.Prepare([]listener.Spec{private})
	}
	if err != nil && set.SocketOptional {
		c.warnings = append(c.warnings, fmt.Sprintf("admin: %v; `reload` and `status` cannot reach this process", err))
		c.unix, err = c.server.unix.Prepare(nil)
	}
	return err
}

// bindTCP binds the TCP address. moves says that a working one is given up for
// it, so that failure has to be an error.
func (c *Change) bindTCP(moves bool) (err error) {
	var specs []listener.Spec
	if a := c.next.settings.Address; a != "" {
		specs = []listener.Spec{{Name: "admin", Addresses: []string{a}}}
	}
	c.tcp, err = c.server.tcp.Prepare(specs)
	if !moves && errors.Is(err, syscall.EADDRINUSE) {
		c.warnings = append(c.warnings, fmt.Sprintf("admin: %v; until a reload finds it free, metrics and health are to be had on the Unix socket alone", err))
		c.tcp, err = c.server.tcp.Prepare(nil)
	}
	return err
}

// Warnings are what the operator has to know although the Change is possible.
func (c *Change) Warnings() []string { return c.warnings }

// Commit makes the Change effective for every request that comes from now on.
func (c *Change) Commit() {
	s := c.server
	s.current.Store(c.next)
	// What left is closed by Serve, which knows who is still being answered on it.
	_, goneTCP := c.tcp.Commit()
	_, goneUnix := c.unix.Commit()
	s.mu.Lock()
	s.left = append(append(s.left, goneTCP...), goneUnix...)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // Serve has not seen the one before yet and will see both
	}
}

// Abort closes what Prepare bound; nothing has changed.
func (c *Change) Abort() {
	c.tcp.Abort()
	c.unix.Abort()
}
