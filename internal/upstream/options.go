package upstream

import (
	"net/netip"
	"slices"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/balance"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/connect"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/resolve"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// Options say what an Upstream is. Name, URL, Servers, Identity, Bundle, Metrics and Buffers are required.
type Options struct {
	Name       string
	URL        string   // for people
	Servers    []Server // in order of preference; with SRV exactly one, without address, for all that DNS names
	SRV        string   // the whole name of SRV records
	Identity   *identity.Identity
	Bundle     *trust.Bundle
	Peer       trust.Peer // ServerName apart, which each Server has
	MinVersion uint16     // of TLS
	Balance    Balance
	Bind       netip.Addr     // where connections leave from; only addresses of its family are used; the zero Addr: anywhere
	Proxy      *connect.Proxy // nil: none
	Pool       Pool
	Timeout    Timeout
	Retry      Retry
	Breaker    Breaker
	Check      Check
	Metrics    *metrics.Upstream
	Buffers    *conn.Buffers
	DNS        resolve.DNS // nil: the system's
}

// Server is a place at which an Upstream is reached, by a name that may have several addresses.
type Server struct {
	Address    string // host:port
	ServerName string // that it is asked for in TLS, and that is verified
	Host       string // the Host field; "" to pass on the caller's
	Weight     int    // shared by its addresses; 0: 1; with SRV, the records have it
	Backup     bool   // used only while none of the others can be
}

func (s *Server) weight() int { return max(s.Weight, 1) }

func (s *Server) tier() int {
	if s.Backup {
		return 1
	}
	return 0
}

// Balance says how an exchange's endpoint is chosen.
type Balance = balance.Policy

// The values of Balance.
const (
	LeastRequests = balance.LeastRequests
	RoundRobin    = balance.RoundRobin
	First         = balance.First
)

// Pool bounds the connections of each Endpoint.
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

// Retry says when an exchange is tried again. It is for whoever carries the exchange, Budget apart.
type Retry struct {
	Attempts   int           // tries after the first
	TryTimeout time.Duration // 0: none
	On         Condition
	Budget     float64 // retries per request, over budgetWindow; leastRetries are always allowed
	MaxBody    int64   // bytes of a request that is tried again
	Backoff    time.Duration
}

// Condition is a set of reasons to try again.
type Condition uint8

// The reasons, as retry.on has them.
const (
	OnConnect Condition = 1 << iota // no connection came about
	OnUnsent                        // a kept connection was closed before any of the request was sent
	OnReset                         // the connection ended before a byte of the response
	On502
	On503
	On504
	OnTimeout // the try took too long
)

// Has reports whether all of reasons are in c.
func (c Condition) Has(reasons Condition) bool { return c&reasons == reasons }

// The budget of retries, apart from its ratio.
const (
	budgetWindow = 10 * time.Second
	leastRetries = 3
)

// Breaker is when the circuit breaker opens and how it closes. Zero values are those of breaker.Options.
type Breaker struct {
	FailureRatio float64
	MinRequests  int
	Window       time.Duration
	OpenFor      time.Duration
	Probes       int
}

// Check is the request that asks each Endpoint how it is. Without Path there is none.
type Check struct {
	Path                         string
	Host                         string // the Host field where a Server has none; "": its ServerName
	Interval, Timeout            time.Duration
	Expect                       []int // statuses of the healthy
	UnhealthyAfter, HealthyAfter int   // checks in a row
}

// Same reports whether o would make an Upstream that differs from u in nothing.
func (u *Upstream) Same(o *Options) bool {
	a, b := &u.o, o
	return a.Name == b.Name && a.URL == b.URL && slices.Equal(a.Servers, b.Servers) && a.SRV == b.SRV &&
		a.Identity == b.Identity && a.Bundle == b.Bundle && a.MinVersion == b.MinVersion && a.Balance == b.Balance && a.Bind == b.Bind &&
		a.Proxy.Equal(b.Proxy) && a.Pool == b.Pool && a.Timeout == b.Timeout && a.Retry == b.Retry && a.Breaker == b.Breaker &&
		a.Check.same(&b.Check) && a.Metrics == b.Metrics && a.Buffers == b.Buffers && a.DNS == b.DNS &&
		a.Peer.ServerName == b.Peer.ServerName && a.Peer.Mode == b.Peer.Mode &&
		slices.Equal(a.Peer.Names, b.Peer.Names) && slices.Equal(a.Peer.Pins, b.Peer.Pins)
}

func (a *Check) same(b *Check) bool {
	return a.Path == b.Path && a.Host == b.Host && a.Interval == b.Interval && a.Timeout == b.Timeout &&
		slices.Equal(a.Expect, b.Expect) && a.UnhealthyAfter == b.UnhealthyAfter && a.HealthyAfter == b.HealthyAfter
}
