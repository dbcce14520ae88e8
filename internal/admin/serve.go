package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/listener"
)

const (
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = time.Minute
	maxHeaderBytes = 16 << 10
	maxConnections = 128 // per socket: a flood on TCP leaves the Unix socket usable

	// closeTimeout is for requests in progress when their socket goes.
	closeTimeout = 5 * time.Second
)

// Serve answers on what was and will be committed until ctx is done. It returns
// once every request was answered or five seconds have passed, and all sockets
// are closed.
func (s *Server) Serve(ctx context.Context) error {
	var running sync.WaitGroup
	servers := make(map[*listener.Socket]*http.Server)
	for {
		for _, sock := range s.takeLeft() {
			srv := servers[sock]
			delete(servers, sock)
			running.Go(func() { s.stop(ctx, srv, sock) })
		}
		for over, set := range map[access]*listener.Set{overTCP: s.tcp, overUnix: s.unix} {
			for _, sock := range set.Sockets() {
				if servers[sock] == nil {
					srv := s.newServer(ctx, over)
					servers[sock] = srv
					running.Go(func() { s.serveOn(srv, sock, over) })
				}
			}
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			for sock, srv := range servers {
				running.Go(func() { s.stop(ctx, srv, sock) })
			}
			running.Wait()
			return s.Close()
		}
	}
}

// Close closes the sockets where Serve was never called.
func (s *Server) Close() error {
	var errs []error
	for _, sock := range s.takeLeft() {
		errs = append(errs, ignoreClosed(sock.Close()))
	}
	for _, set := range []*listener.Set{s.tcp, s.unix} {
		errs = append(errs, ignoreClosed(set.Close()))
	}
	return errors.Join(errs...)
}

func (s *Server) takeLeft() []*listener.Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.left
	s.left = nil
	return left
}

// serveOn accepts on sock until stop ends it.
func (s *Server) serveOn(srv *http.Server, sock *listener.Socket, over access) {
	var ln net.Listener = sock
	if over == overTCP {
		ln = &tlsListener{Socket: sock, config: func() *tls.Config { return s.current.Load().tls }}
	}
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		s.options.Report(fmt.Errorf("admin: accept on %s: %w", sock.Address, err))
	}
}

// stop closes sock, gives requests in progress a moment, and then cuts them.
// srv is nil when sock was never served.
func (s *Server) stop(ctx context.Context, srv *http.Server, sock *listener.Socket) {
	if srv != nil {
		// ctx may be over, which is why we are here.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			_ = srv.Close() // what is still open was given its time
		}
	}
	_ = sock.Close() // srv closes it too, unless it did not serve yet
}

// newServer returns one for one socket, so that it can go alone.
func (s *Server) newServer(stop context.Context, over access) *http.Server {
	held := &connections{of: make(map[net.Conn]*connection)}
	answer := s.answer(stop, over)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer held.answering(r)()
			answer.ServeHTTP(w, r)
		}),
		ConnContext:       keepPeer,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(reporter(s.options.Report), "", 0),
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				held.add(c)
			case http.StateClosed, http.StateHijacked:
				held.remove(c)
			}
		},
	}
}

// connections are those of one socket. When there are too many, the one that has been silent for longest is closed, so that
// half-sent requests cannot hold all of them.
type connections struct {
	mu sync.Mutex
	of map[net.Conn]*connection
}

type connection struct {
	since   time.Time // it is silent, or has not said all of a request; or is being answered
	answers bool      // a request is being answered
}

// add counts c in, and closes the one that makes room, if that is necessary.
func (h *connections) add(c net.Conn) {
	h.mu.Lock()
	var out net.Conn
	if len(h.of) >= maxConnections {
		for other, k := range h.of {
			if out == nil || k.goesBefore(h.of[out]) {
				out = other
			}
		}
		delete(h.of, out)
	}
	h.of[c] = &connection{since: time.Now()}
	h.mu.Unlock()
	if t, ok := out.(*tls.Conn); ok {
		out = t.NetConn() // a close_notify could block
	}
	if out != nil {
		_ = out.Close() // the server finds out and lets go of it
	}
}

// goesBefore reports whether k makes room rather than o. Where all are being answered, it is the one that takes longest to read that.
func (k *connection) goesBefore(o *connection) bool {
	if k.answers != o.answers {
		return !k.answers
	}
	return k.since.Before(o.since)
}

func (h *connections) remove(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, c)
}

// answering notes that r is being answered, until the function that it returns is called.
func (h *connections) answering(r *http.Request) (over func()) {
	c := connOf(r.Context())
	set := func(answers bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if k := h.of[c]; k != nil {
			k.answers, k.since = answers, time.Now()
		}
	}
	set(true)
	return func() { set(false) }
}

// tlsListener speaks TLS on the connections it accepts while the settings want it.
type tlsListener struct {
	*listener.Socket
	config func() *tls.Config
}

func (l *tlsListener) Accept() (net.Conn, error) {
	c, err := l.Socket.Accept()
	if err != nil {
		return nil, err
	}
	if config := l.config(); config != nil {
		return tls.Server(c, config), nil
	}
	return c, nil
}

// reporter passes on what net/http wants logged. Strangers whose handshake
// fails are no news.
type reporter func(error)

func (r reporter) Write(line []byte) (int, error) {
	if text := strings.TrimSpace(string(line)); !strings.Contains(text, "TLS handshake error") {
		r(fmt.Errorf("admin: %s", text))
	}
	return len(line), nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
