package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/connect"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// maxSessions is how many TLS sessions are kept for resumption with an Endpoint. TLS 1.3 servers give several with each
// handshake, each of them good once.
const maxSessions = 64

// Endpoint is one address of an Upstream, with its connections. It is safe for concurrent use.
type Endpoint struct {
	up      *Upstream
	o       *Options // of up
	id      string
	address string // host:port to dial, or to ask the proxy for
	server  *Server
	peer    trust.Peer

	config    *tls.Config // with every key exchange that crypto/tls offers by itself
	classical *tls.Config // without those that groups says are in vain
	groups    groups
	gate      *admission.Gate // nil without MaxActive

	soloUntil          atomic.Int64 // until then a connection carries one request, in nanoseconds of Unix time; see Distrust
	soloAfterBodyUntil atomic.Int64 // until then a request with a body is the last of its connection, likewise
	joined             time.Time
	checked            atomic.Pointer[Checked] // the last health check; nil: none yet

	mu       sync.Mutex // guards what follows
	idle     []*Conn    // the one used last at the end
	reserved []reserved // by when they are ready
	retired  bool
}

func newEndpoint(u *Upstream, id, address string, s *Server) *Endpoint {
	e := &Endpoint{
		up: u, o: &u.o, id: id, address: address, server: s, peer: u.o.Peer, groups: groups{base: time.Now()},
	}
	e.joined = e.groups.base
	e.peer.ServerName = s.ServerName
	if u.o.Pool.MaxActive > 0 {
		e.gate = admission.NewGate(u.o.Pool.MaxActive)
	}
	e.config = &tls.Config{
		ServerName:           s.ServerName,
		MinVersion:           u.o.MinVersion,
		NextProtos:           []string{"http/1.1"},
		GetClientCertificate: e.certificate,
		ClientSessionCache:   tls.NewLRUClientSessionCache(maxSessions),
		// Verification is VerifyConnection's. The one of crypto/tls knows nothing of pins, names that differ from the
		// server name, or weak keys, and does not look at resumed sessions again.
		InsecureSkipVerify:          true, //nolint:gosec // see above
		VerifyConnection:            func(cs tls.ConnectionState) error { return e.o.Bundle.Verify(&e.peer, cs) },
		DynamicRecordSizingDisabled: true,
	}
	e.classical = e.config.Clone()
	e.classical.CurvePreferences = classical()
	return e
}

// certificate presents our chain whatever authorities the server says it takes: a chain that it refuses explains itself,
// none at all does not.
func (e *Endpoint) certificate(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if c, ok := asked.Context().Value(connKey{}).(*Conn); ok {
		c.asked, c.unlisted = true, len(asked.AcceptableCAs) > 0 && !e.up.listed(asked.AcceptableCAs)
	}
	return &e.o.Identity.Certificate, nil
}

// connKey is what a handshake's context holds its *Conn under.
type connKey struct{}

// Address is for people: the address, with the name that it was found under.
func (e *Endpoint) Address() string { return e.id }

// Upstream is whose address it is.
func (e *Endpoint) Upstream() *Upstream { return e.up }

// ServerName is the name that it is asked for in TLS.
func (e *Endpoint) ServerName() string { return e.server.ServerName }

// Host is the Host field for it; "" to pass on the caller's.
func (e *Endpoint) Host() string { return e.server.Host }

// Gate bounds how many exchanges use it at once; nil when nothing does.
func (e *Endpoint) Gate() *admission.Gate { return e.gate }

func (e *Endpoint) idleConns() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.idle) + len(e.reserved)
}

// Dial makes a new connection for an exchange, to this one address, or asks the proxy for it. It ends early when ctx
// does, with the cause of that. Errors are *fault.Fault. The caller calls Keep or Close on the connection.
//
// An address that answers nothing costs all of Timeout.Connect. Upstream.Dial does not wait for that while there are
// others.
func (e *Endpoint) Dial(ctx context.Context) (*Conn, error) {
	nc, err := e.reach(ctx)
	if err != nil {
		e.missed(ctx)
		return nil, err
	}
	return e.secure(ctx, nc)
}

// reach opens a connection for TLS. Errors are *fault.Fault.
func (e *Endpoint) reach(ctx context.Context) (net.Conn, error) {
	nc, err := e.connect(ctx)
	if err != nil {
		if end, bound := ctx.Deadline(); bound && !time.Now().Before(end) {
			<-ctx.Done() // the dialer keeps to the same time, and may be the first to see that it is over
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, e.connectFault(err)
	}
	return nc, nil
}

// secure makes the connection one of ours.
func (e *Endpoint) secure(ctx context.Context, nc net.Conn) (*Conn, error) {
	c, err := e.handshake(ctx, conn.NewSocket(nc))
	if err != nil {
		e.missed(ctx)
		return nil, err
	}
	e.up.active.Add(1)
	e.o.Metrics.ConnOpened()
	if e.up.isVerbose() {
		e.up.tellVerbosely(Event{
			Kind: ConnOpened, Endpoint: e.id, TLS: c.tls.ConnectionState().Version, Resumed: c.resumed, For: time.Since(c.born),
		})
	}
	return c, nil
}

// missed has the name looked up again after a failure, unless ctx was the reason: it may lead elsewhere by now.
func (e *Endpoint) missed(ctx context.Context) {
	if ctx.Err() == nil && e.up.resolver != nil {
		e.up.resolver.Refresh()
	}
}

// connect opens a connection for TLS.
func (e *Endpoint) connect(ctx context.Context) (net.Conn, error) {
	limit := e.o.Timeout.Connect
	if e.o.Proxy == nil {
		return e.up.dialer.Dial(ctx, limit, e.address)
	}
	if limit > 0 { // the proxy's answer included
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fault.New(fault.ConnectionTimeout,
			fmt.Errorf("connect to %s through proxy %s: nothing after %v", e.address, e.o.Proxy, limit)))
		defer cancel()
	}
	dial := func(ctx context.Context, _, address string) (net.Conn, error) {
		return e.up.dialer.Dial(ctx, limit, address)
	}
	return e.o.Proxy.Dial(ctx, dial, e.address)
}

// connectFault names a failure to open a connection.
func (e *Endpoint) connectFault(err error) *fault.Fault {
	if f := e.o.bindFault(err); f != nil {
		return f
	}
	refusal, ok := errors.AsType[*connect.Refusal](err)
	malformed, _ := errors.AsType[*connect.Malformed](err)
	switch {
	case malformed != nil:
		return fault.New(fault.TunnelResponseMalformed, err).
			WithDetail("The HTTP proxy on the way to the upstream cannot be used: " + malformed.Error() + ".")
	case !ok:
		f := fault.Classify(fault.PhaseConnect, err)
		if e.o.Proxy != nil && f.Token.Blame() == fault.Upstream && f.Detail == "" && f.Token != fault.ConnectionTimeout {
			f = f.WithDetail("The HTTP proxy on the way to the upstream could not be reached, or hung up.").
				WithFix("Check the host and port of the upstream's proxy, and look into the log of that proxy.")
		}
		return f
	case refusal.Status == 407:
		return fault.New(fault.ConfigurationError, err).
			WithDetail("The HTTP proxy on the way to the upstream does not accept us.").
			WithFix("Correct the upstream's proxy and proxy_password_file.")
	case refusal.Status == 504:
		return fault.New(fault.ConnectionTimeout, err).
			WithDetail("The HTTP proxy on the way to the upstream got no connection to it in time.")
	default:
		return fault.New(fault.ConnectionRefused, err).
			WithDetail(fmt.Sprintf("The HTTP proxy on the way to the upstream answered with status %d.", refusal.Status))
	}
}

func (e *Endpoint) handshake(ctx context.Context, s *conn.Socket) (*Conn, error) {
	begin := time.Now()
	wire := conn.NewWire(s, e.o.Buffers)
	config, whole := e.classical, e.groups.whole(begin)
	if whole {
		config = e.config
	}
	c := &Conn{e: e, socket: s, wire: wire, tls: tls.Client(wire, config), born: begin}
	unwatch := context.AfterFunc(ctx, s.Interrupt)
	timer := time.AfterFunc(e.o.Timeout.TLSHandshake, s.Interrupt)
	// The context is for certificate alone: crypto/tls would close the connection under us when it ends.
	err := c.tls.HandshakeContext(context.WithValue(context.WithoutCancel(ctx), connKey{}, c))
	late, cancelled := !timer.Stop(), !unwatch()
	if err == nil && (late || cancelled) {
		err = conn.ErrInterrupted // the socket is or will be
	}
	if err == nil {
		state := c.tls.ConnectionState()
		c.resumed = state.DidResume
		if whole {
			e.groups.chosen(state.CurveID, begin)
		}
		e.o.Metrics.Handshake(c.resumed, time.Since(begin))
		c.mark = wire.Sent()
		return c, nil
	}
	_ = wire.Close()
	wire.Rest()
	e.groups.forget() // a server that wants ML-KEM by now has no other way to say so
	if errors.Is(err, conn.ErrInterrupted) {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case late:
			err = fault.New(fault.TLSHandshakeTimeout, fmt.Errorf("TLS handshake with %s: nothing after %v", e.id, e.o.Timeout.TLSHandshake))
		}
	}
	return nil, c.Fault(fault.PhaseHandshake, fmt.Errorf("TLS handshake with %s: %w", e.id, err))
}

// retire closes what is idle and lets what is busy finish its exchange; nothing is kept any more.
func (e *Endpoint) retire() {
	e.mu.Lock()
	idle := e.idle
	for _, r := range e.reserved {
		idle = append(idle, r.conn)
	}
	e.idle, e.reserved, e.retired = nil, nil, true
	e.mu.Unlock()
	for _, c := range idle {
		c.close(metrics.ClosedRetired)
	}
}
