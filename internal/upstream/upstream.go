// Package upstream is one remote service: connections to it over mutual TLS, and the pool that keeps them.
package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// Options say what an Upstream is. Every field is required but those of Pool.
type Options struct {
	Name       string
	URL        string // for people
	Address    string // host:port
	Identity   *identity.Identity
	Bundle     *trust.Bundle
	Peer       trust.Peer
	MinVersion uint16 // of TLS
	Pool       Pool
	Timeout    Timeout
	Metrics    *metrics.Upstream
	Buffers    *conn.Buffers
}

// Pool bounds the connections of an Upstream.
type Pool struct {
	MaxIdle     int           // 0: none is kept
	MaxActive   int           // 0: no bound
	IdleTimeout time.Duration // 0: no bound
	MaxAge      time.Duration // 0: no bound
}

// Timeout bounds what is done with an Upstream. Connect and TLSHandshake bound Dial; the others are for whoever carries
// the exchange.
type Timeout struct {
	Connect, TLSHandshake, ResponseHeader, Idle, Request, TunnelIdle time.Duration
}

// maxSessions is how many TLS sessions are kept for resumption. TLS 1.3 servers give several with each handshake, each
// of them good once.
const maxSessions = 64

// Upstream is one remote service as one identity sees it. It is safe for concurrent use.
type Upstream struct {
	o         Options
	config    *tls.Config // with every key exchange that crypto/tls offers by itself
	classical *tls.Config // without those that groups says are in vain
	groups    groups
	gate      *admission.Gate // nil without MaxActive

	issuers [][]byte // of each certificate in our chain, as DER
	active  atomic.Int64
	cut     atomic.Pointer[time.Time] // when a retired Upstream's exchanges are to end

	mu      sync.Mutex // guards idle and retired
	idle    []*Conn    // the one used last at the end
	retired bool
}

// New returns an Upstream without any connection.
func New(o Options) *Upstream {
	u := &Upstream{o: o, groups: groups{base: time.Now()}}
	if o.Pool.MaxActive > 0 {
		u.gate = admission.NewGate(o.Pool.MaxActive)
	}
	for _, der := range o.Identity.Certificate.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil {
			u.issuers = append(u.issuers, c.RawIssuer)
		}
	}
	u.config = &tls.Config{
		ServerName:           o.Peer.ServerName,
		MinVersion:           o.MinVersion,
		NextProtos:           []string{"http/1.1"},
		GetClientCertificate: u.certificate,
		ClientSessionCache:   tls.NewLRUClientSessionCache(maxSessions),
		// Verification is VerifyConnection's. The one of crypto/tls knows nothing of pins, names that differ from the
		// server name, or weak keys, and does not look at resumed sessions again.
		InsecureSkipVerify:          true, //nolint:gosec // see above
		VerifyConnection:            func(cs tls.ConnectionState) error { return o.Bundle.Verify(&u.o.Peer, cs) },
		DynamicRecordSizingDisabled: true,
	}
	u.classical = u.config.Clone()
	u.classical.CurvePreferences = classical()
	return u
}

// certificate presents our chain whatever authorities the server says it takes: a chain that it refuses explains itself,
// none at all does not.
func (u *Upstream) certificate(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if c, ok := asked.Context().Value(connKey{}).(*Conn); ok {
		c.asked, c.unlisted = true, len(asked.AcceptableCAs) > 0 && !u.listed(asked.AcceptableCAs)
	}
	return &u.o.Identity.Certificate, nil
}

// listed reports whether one of those authorities issued a certificate of our chain.
func (u *Upstream) listed(authorities [][]byte) bool {
	for _, issuer := range u.issuers {
		if slices.ContainsFunc(authorities, func(a []byte) bool { return bytes.Equal(a, issuer) }) {
			return true
		}
	}
	return false
}

// connKey is what a handshake's context holds its *Conn under.
type connKey struct{}

// Name is the name that the configuration gives it.
func (u *Upstream) Name() string { return u.o.Name }

// URL is for people.
func (u *Upstream) URL() string { return u.o.URL }

// ServerName is the name that it is asked for in TLS.
func (u *Upstream) ServerName() string { return u.o.Peer.ServerName }

// Timeout returns the bounds that hold for its exchanges.
func (u *Upstream) Timeout() *Timeout { return &u.o.Timeout }

// Gate bounds how many exchanges use it at once; nil when nothing does.
func (u *Upstream) Gate() *admission.Gate { return u.gate }

// Metrics returns its counters.
func (u *Upstream) Metrics() *metrics.Upstream { return u.o.Metrics }

// Same reports whether o would make an Upstream that differs from u in nothing.
func (u *Upstream) Same(o *Options) bool {
	a, b := &u.o, o
	return a.Name == b.Name && a.URL == b.URL && a.Address == b.Address && a.MinVersion == b.MinVersion &&
		a.Identity == b.Identity && a.Bundle == b.Bundle && a.Pool == b.Pool && a.Timeout == b.Timeout &&
		a.Metrics == b.Metrics && a.Buffers == b.Buffers &&
		a.Peer.ServerName == b.Peer.ServerName && a.Peer.Mode == b.Peer.Mode &&
		slices.Equal(a.Peer.Names, b.Peer.Names) && slices.Equal(a.Peer.Pins, b.Peer.Pins)
}

// Stats counts the connections that wait for an exchange and those that carry one.
func (u *Upstream) Stats() (idle, active int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.idle), int(u.active.Load())
}

// Dial makes a new connection for an exchange. It ends early when ctx does, with the cause of that. Errors are
// *fault.Fault. The caller calls Keep or Close on the connection.
func (u *Upstream) Dial(ctx context.Context) (*Conn, error) {
	dialer := net.Dialer{Timeout: u.o.Timeout.Connect}
	nc, err := dialer.DialContext(ctx, "tcp", u.o.Address)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fault.Classify(fault.PhaseConnect, err)
	}
	c, err := u.handshake(ctx, conn.NewSocket(nc))
	if err != nil {
		return nil, err
	}
	u.active.Add(1)
	u.o.Metrics.ConnOpened()
	return c, nil
}

func (u *Upstream) handshake(ctx context.Context, s *conn.Socket) (*Conn, error) {
	begin := time.Now()
	wire := conn.NewWire(s, u.o.Buffers)
	config, whole := u.classical, u.groups.whole(begin)
	if whole {
		config = u.config
	}
	c := &Conn{u: u, socket: s, wire: wire, tls: tls.Client(wire, config), born: begin}
	unwatch := context.AfterFunc(ctx, s.Interrupt)
	timer := time.AfterFunc(u.o.Timeout.TLSHandshake, s.Interrupt)
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
			u.groups.chosen(state.CurveID, begin)
		}
		u.o.Metrics.Handshake(c.resumed, time.Since(begin))
		return c, nil
	}
	_ = wire.Close()
	wire.Rest()
	u.groups.forget() // a server that wants ML-KEM by now has no other way to say so
	if errors.Is(err, conn.ErrInterrupted) {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case late:
			err = fault.New(fault.TLSHandshakeTimeout, fmt.Errorf("TLS handshake with %s: nothing after %v", u.o.Address, u.o.Timeout.TLSHandshake))
		}
	}
	return nil, c.Fault(fault.PhaseHandshake, fmt.Errorf("TLS handshake with %s: %w", u.o.Address, err))
}

// Retire closes what is idle and lets what is busy finish its exchange; nothing is kept any more. Exchanges that still
// last at cut are to be ended by whoever carries them; the zero time sets no such end.
func (u *Upstream) Retire(cut time.Time) {
	u.mu.Lock()
	idle := u.idle
	u.idle, u.retired = nil, true
	u.mu.Unlock()
	if !cut.IsZero() {
		u.cut.Store(&cut)
	}
	for _, c := range idle {
		c.close(metrics.ClosedRetired)
	}
}

// Overdue reports whether exchanges with a retired Upstream are to end now.
func (u *Upstream) Overdue(now time.Time) bool {
	cut := u.cut.Load()
	return cut != nil && !now.Before(*cut)
}
