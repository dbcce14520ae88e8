package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// ClientCertificate says what an Upstream asks of its clients.
type ClientCertificate uint8

// What an Upstream asks for.
const (
	Required ClientCertificate = iota // a certificate of the client authority
	Optional                          // the same, or none
	Unasked                           // does not ask
)

// UpstreamOptions describe an Upstream. The zero value of each field but
// Authority is good.
type UpstreamOptions struct {
	Authority         *Authority        // issues the server's certificate and, without ClientAuthority, the clients'
	ClientAuthority   *Authority        // issues the clients' certificates
	Certificate       *Issued           // the server's; nil: one for localhost
	ClientCertificate ClientCertificate // Required
	Address           string            // 127.0.0.1 and a free port
	MinVersion        uint16            // TLS 1.2
	MaxVersion        uint16            // the newest
	NoTickets         bool              // sessions cannot be resumed
	Configure         func(*tls.Config) // has the last word on the TLS configuration
	Handler           http.Handler      // answers requests; nil: Handler()

	// Script, when set, speaks with each client instead of an HTTP server. It
	// runs on a goroutine of its own once the handshake is done; c is closed
	// when it returns.
	Script func(c *Conn)
}

// Stats counts what an Upstream has seen.
type Stats struct {
	Connections     int // accepted
	Open            int // of these, not closed yet
	Handshakes      int // completed, resumed ones included
	Resumed         int // of these, resumed
	HandshakeErrors int
	Requests        int // not counted in scripts
}

// Upstream is a TLS server on this host that demands client certificates.
type Upstream struct {
	o      UpstreamOptions
	ln     net.Listener
	config *tls.Config
	server *http.Server  // nil with a Script
	ready  chan net.Conn // connections for server
	done   chan struct{} // closed by Close
	wg     sync.WaitGroup

	mu           sync.Mutex // guards what follows
	closed       bool
	stats        Stats
	conns        map[*tls.Conn]*Conn
	handshakeErr error
}

// NewUpstream starts an Upstream. The caller closes it.
func NewUpstream(o UpstreamOptions) (*Upstream, error) {
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	if o.ClientAuthority == nil {
		o.ClientAuthority = o.Authority
	}
	if o.Certificate == nil {
		c, err := o.Authority.Server()
		if err != nil {
			return nil, err
		}
		o.Certificate = c
	}
	u := &Upstream{o: o, done: make(chan struct{}), conns: map[*tls.Conn]*Conn{}}
	u.config = u.tlsConfig()
	ln, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, err
	}
	u.ln = ln
	if o.Script == nil {
		u.ready = make(chan net.Conn)
		u.server = u.httpServer()
		// The queue has no way to fail but its end.
		u.wg.Go(func() { _ = u.server.Serve(queue{u}) })
	}
	u.wg.Go(u.accept)
	return u, nil
}

func (u *Upstream) tlsConfig() *tls.Config {
	c := &tls.Config{
		Certificates:           []tls.Certificate{u.o.Certificate.TLS()},
		MinVersion:             max(u.o.MinVersion, tls.VersionTLS12),
		MaxVersion:             u.o.MaxVersion,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: u.o.NoTickets,
	}
	switch u.o.ClientCertificate {
	case Required:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	case Optional:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	case Unasked:
		c.ClientAuth = tls.NoClientCert
	}
	if u.o.ClientAuthority != nil {
		c.ClientCAs = u.o.ClientAuthority.Pool()
	}
	if u.o.Configure != nil {
		u.o.Configure(c)
	}
	return c
}

// URL returns the upstream's base URL, by its IP address.
func (u *Upstream) URL() string { return "https://" + u.Addr() }

// Addr returns the address that the upstream listens on.
func (u *Upstream) Addr() string { return u.ln.Addr().String() }

// Stats returns what was seen so far.
func (u *Upstream) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stats
}

// HandshakeError returns why the last handshake that failed did so, or nil.
func (u *Upstream) HandshakeError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.handshakeErr
}

// Cut closes every connection that is open now, without a word to the client.
func (u *Upstream) Cut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.conns {
		c.raw.Close()
	}
}

// Close ends everything and returns when nothing of the upstream runs any more.
// Scripts are told through Conn.Done, and their connections are closed.
func (u *Upstream) Close() error {
	u.mu.Lock()
	again := u.closed
	u.closed = true
	u.mu.Unlock()
	if again {
		u.wg.Wait()
		return nil
	}
	close(u.done)
	err := u.ln.Close()
	if u.server != nil {
		err = errors.Join(err, u.server.Close())
	}
	u.Cut()
	u.wg.Wait()
	return err
}

func (u *Upstream) accept() {
	for {
		raw, err := u.ln.Accept()
		if err != nil {
			return
		}
		c := &Conn{Conn: tls.Server(raw, u.config), raw: raw.(*net.TCPConn), upstream: u}
		if !u.add(c) {
			raw.Close()
			return
		}
		u.wg.Go(func() { u.serve(c) })
	}
}

func (u *Upstream) add(c *Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.stats.Connections++
	u.stats.Open++
	c.Number = u.stats.Connections
	u.conns[c.Conn] = c
	return true
}

func (u *Upstream) remove(c *tls.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.conns[c]; ok {
		delete(u.conns, c)
		u.stats.Open--
	}
}

// serve carries one connection through its handshake and hands it on.
func (u *Upstream) serve(c *Conn) {
	if err := u.handshake(c); err != nil {
		c.raw.Close()
		u.remove(c.Conn)
		return
	}
	if u.o.Script != nil {
		u.o.Script(c)
		c.Close()
		u.remove(c.Conn)
		return
	}
	select {
	case u.ready <- c.Conn:
	case <-u.done:
		c.raw.Close()
		u.remove(c.Conn)
	}
}

func (u *Upstream) handshake(c *Conn) error {
	const timeout = 10 * time.Second
	_ = c.raw.SetDeadline(time.Now().Add(timeout))
	err := c.Handshake()
	_ = c.raw.SetDeadline(time.Time{})
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		u.stats.HandshakeErrors++
		u.handshakeErr = err
		return err
	}
	u.stats.Handshakes++
	if c.ConnectionState().DidResume {
		u.stats.Resumed++
	}
	return nil
}

// connKey is what a request's context holds its *Conn under.
type connKey struct{}

func (u *Upstream) httpServer() *http.Server {
	h := u.o.Handler
	if h == nil {
		h = Handler()
	}
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u.wg.Add(1) // the connection's own count ends when it is hijacked
			defer u.wg.Done()
			c := r.Context().Value(connKey{}).(*Conn)
			u.mu.Lock()
			u.stats.Requests++
			u.mu.Unlock()
			h.ServeHTTP(w, r)
			u.mu.Lock()
			hijacked := c.hijacked
			u.mu.Unlock()
			if hijacked {
				c.Close()
				u.remove(c.Conn)
			}
		}),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // cut connections; they are a test's business
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			u.mu.Lock()
			defer u.mu.Unlock()
			return context.WithValue(ctx, connKey{}, u.conns[c.(*tls.Conn)])
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				u.wg.Add(1)
			case http.StateClosed:
				u.remove(c.(*tls.Conn))
				u.wg.Done()
			case http.StateHijacked:
				u.mu.Lock()
				u.conns[c.(*tls.Conn)].hijacked = true
				u.mu.Unlock()
				u.wg.Done()
			}
		},
	}
}

// queue hands connections whose handshake is done to an http.Server.
type queue struct{ u *Upstream }

func (q queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.u.ready:
		return c, nil
	case <-q.u.done:
		return nil, net.ErrClosed
	}
}

func (q queue) Close() error   { return nil } // Upstream.Close ends it
func (q queue) Addr() net.Addr { return q.u.ln.Addr() }
