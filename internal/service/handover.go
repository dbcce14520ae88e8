package service

import (
	"context"
	"net"
	"syscall"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/listener"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
)

// handOverTimeout bounds the wait until the service manager has taken the connections. If it takes longer, they are on
// their way all the same.
const handOverTimeout = 5 * time.Second

// handOver leaves idle connections of callers to the service manager, for the process that comes after this one.
func (s *service) handOver(ctx context.Context, kept map[string][]net.Conn) {
	total := 0
	for _, name := range sortedKeys(kept) {
		var conns []syscall.Conn
		for _, c := range kept[name] {
			if sc, ok := c.(syscall.Conn); ok {
				conns = append(conns, sc)
			}
		}
		stored, err := s.notify.Store(name, conns)
		s.report(err)
		total += stored
	}
	if total > 0 {
		bctx, cancel := context.WithTimeout(ctx, handOverTimeout)
		defer cancel()
		s.report(s.notify.Barrier(bctx))
		s.logger.Info("idle connections left to the service manager", "event", logging.ConnectionsLeft, "connections", total)
	}
	for _, conns := range kept {
		for _, c := range conns {
			_ = c.Close() // the service manager has its own descriptor of it
		}
	}
}

// adopt serves the connections that the process before this one left, where their listener still is what it was.
func (s *service) adopt(ctx context.Context) {
	sockets := s.listeners.set.Sockets()
	taken, err := s.notify.Adopt(s.inherited, func(name string, c net.Conn) bool {
		return isOf(sockets, name, c.LocalAddr()) && s.server.Adopt(ctx, name, c)
	})
	s.report(err)
	if taken > 0 {
		s.logger.Info("connections of the process before adopted", "event", logging.ConnectionsAdopted, "connections", taken)
	}
}

// isOf reports whether a connection to local would be accepted by one of that listener's sockets.
func isOf(sockets []*listener.Socket, name string, local net.Addr) bool {
	for _, sock := range sockets {
		if sock.Name != name {
			continue
		}
		at, tcp := sock.Addr().(*net.TCPAddr)
		to, isTCP := local.(*net.TCPAddr)
		switch {
		case tcp != isTCP:
		case tcp && at.Port == to.Port && (at.IP.IsUnspecified() || at.IP.Equal(to.IP)), !tcp && sock.Addr().String() == local.String():
			return true
		}
	}
	return false
}
