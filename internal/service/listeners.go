package service

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/listener"
	"github.com/mtls-proxy/mtls-proxy/internal/proxy"
	"github.com/mtls-proxy/mtls-proxy/internal/reload"
)

// listeners accepts on the sockets of the current generation, a goroutine each.
type listeners struct {
	set    *listener.Set
	server *proxy.Server
	group  *errgroup.Group // of the goroutines that accept; set before the first Prepare
	alive  context.Context // ends when one of them fails; set with group

	mu       sync.Mutex // guards the following
	stopped  bool
	serving  map[*listener.Socket]*accepting
	warnings []string
}

// accepting is one goroutine that accepts.
type accepting struct {
	stop context.CancelCauseFunc
	done chan struct{} // closed once it has returned
}

func newListeners(inherited map[string][]net.Listener, server *proxy.Server) *listeners {
	return &listeners{set: listener.NewSet(inherited), server: server, serving: make(map[*listener.Socket]*accepting)}
}

// Prepare binds the sockets that cfg adds.
func (l *listeners) Prepare(_ context.Context, cfg *config.Config) (reload.Change, error) {
	change, err := l.set.Prepare(specs(cfg))
	if err != nil {
		return nil, err
	}
	return &listenersChange{l, change}, nil
}

type listenersChange struct {
	l      *listeners
	change *listener.Change
}

func (c *listenersChange) Abort() { c.change.Abort() }

// Commit begins to accept on what is new and stops on what left. Connections
// accepted there live on.
func (c *listenersChange) Commit() {
	warnings := c.change.Warnings()
	now, left := c.change.Commit()
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.warnings = warnings
	for _, sock := range left {
		if a := c.l.serving[sock]; a != nil {
			a.stop(c.cause(sock))
			<-a.done
			delete(c.l.serving, sock)
		}
		_ = sock.Close() // it is out of use either way
	}
	for _, socks := range now {
		for _, sock := range socks {
			if c.l.serving[sock] == nil && !c.l.stopped {
				c.l.accept(sock)
			}
		}
	}
}

// cause is why accepting on sock ends: it is closed, or another name has taken it over with its backlog (nil).
func (c *listenersChange) cause(sock *listener.Socket) error {
	if c.change.Moved(sock) {
		return nil
	}
	return proxy.ErrClosing
}

// accept starts the goroutine of sock. The caller holds mu.
func (l *listeners) accept(sock *listener.Socket) {
	ctx, stop := context.WithCancelCause(l.alive)
	a := &accepting{stop: stop, done: make(chan struct{})}
	l.serving[sock] = a
	l.group.Go(func() error {
		defer close(a.done)
		defer stop(nil)
		if err := l.server.Serve(ctx, sock.Name, sock); err != nil && ctx.Err() == nil {
			return fmt.Errorf("listener %q: %s: %w", sock.Name, sock.Address, err)
		}
		return nil
	})
}

// stop ends accepting everywhere. Sockets of the service manager stay open, so
// that callers queue for the next process; ours are closed, so that callers
// learn at once that nobody is there. It returns why one of them failed.
func (l *listeners) stop() error {
	l.mu.Lock()
	l.stopped = true
	for sock, a := range l.serving {
		if sock.Inherited {
			a.stop(nil)
		} else {
			a.stop(proxy.ErrClosing)
		}
	}
	l.mu.Unlock()
	err := l.group.Wait()
	l.close()
	return err
}

// close closes what we bound, where nobody accepts any more; also what a
// reload that came late has bound.
func (l *listeners) close() { _ = l.set.Close() }

func (l *listeners) status(connections map[string]int) (list []ListenerStatus, warnings []string) {
	list = []ListenerStatus{}
	for _, sock := range l.set.Sockets() {
		if n := len(list); n > 0 && list[n-1].Name == sock.Name {
			list[n-1].Addresses = append(list[n-1].Addresses, bound(sock))
			continue
		}
		list = append(list, ListenerStatus{Name: sock.Name, Addresses: []string{bound(sock)}, Inherited: sock.Inherited, Connections: connections[sock.Name]})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return list, slices.Clone(l.warnings)
}

// bound is the address of sock with the port that the kernel chose where the
// configuration left that open.
func bound(sock *listener.Socket) string {
	if tcp, ok := sock.Addr().(*net.TCPAddr); ok {
		return tcp.String()
	}
	return sock.Address
}

func specs(cfg *config.Config) []listener.Spec {
	var list []listener.Spec
	for _, name := range sortedKeys(cfg.Listener) {
		l := cfg.Listener[name]
		list = append(list, listener.Spec{Name: name, Addresses: l.Address, UnixMode: l.UnixMode.FileMode, UnixGroup: l.UnixGroup})
	}
	return list
}
