// Package upstream is one remote service: its endpoints, which of them an exchange uses, connections to them over mutual
// TLS, and the pools that keep these.
package upstream

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/balance"
	"github.com/mtls-proxy/mtls-proxy/internal/breaker"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/resolve"
)

// member is an Endpoint with what the choice among them knows about it.
type member = balance.Endpoint[*Endpoint]

// Upstream is one remote service as one identity sees it. It is safe for concurrent use.
//
// Its endpoints are the addresses of its servers. Those that are written as IP addresses are there from the beginning;
// names are looked up by Run. Through a proxy, names are the proxy's to look up, and each is one endpoint.
type Upstream struct {
	o       Options
	issuers [][]byte // of each certificate in our chain, as DER

	set      *balance.Set[*Endpoint]
	list     atomic.Pointer[[]*Endpoint] // those of set
	resolver *resolve.Resolver           // nil when a proxy looks names up
	invalid  error                       // why there will never be an endpoint
	breaker  *breaker.Breaker
	budget   *breaker.Budget
	dialer   *conn.Dialer

	active  atomic.Int64
	cut     atomic.Pointer[time.Time]   // when a retired Upstream's exchanges are to end
	over    chan struct{}               // closed by Retire
	events  events                      // for Run to tell
	verbose atomic.Pointer[func() bool] // Told.Verbose of Run
	fresh   chan struct{}               // holds one when list has changed, for health checks

	recovery recovery // of endpoints that get no exchanges

	failing bool // the last round of lookups failed; belongs to answered

	mu      sync.Mutex // held to change set and list; guards what follows
	retired bool
	places  map[string]place // of endpoints that are about to join, by ID
}

// place is where an endpoint is.
type place struct {
	server  *Server
	address string
}

// New returns an Upstream without any connection. Names are not looked up before Run.
func New(o Options) *Upstream {
	u := &Upstream{
		o: o, over: make(chan struct{}), events: newEvents(), fresh: make(chan struct{}, 1), recovery: newRecovery(),
		budget: breaker.NewBudget(o.Retry.Budget, leastRetries, budgetWindow), dialer: conn.NewDialer(o.Bind),
	}
	for _, der := range o.Identity.Certificate.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil {
			u.issuers = append(u.issuers, c.RawIssuer)
		}
	}
	u.breaker = breaker.New(breaker.Options{
		FailureRatio: o.Breaker.FailureRatio, MinRequests: o.Breaker.MinRequests, Window: o.Breaker.Window,
		OpenFor: o.Breaker.OpenFor, Probes: o.Breaker.Probes, Changed: u.breakerChanged,
	})
	u.set = balance.New(balance.Options[*Endpoint]{Policy: o.Balance, Open: u.open, Ejected: u.ejected})
	u.list.Store(new([]*Endpoint))
	now := time.Now()
	if o.Proxy != nil && o.SRV == "" {
		var specs []balance.Spec
		places := make(map[string]place)
		for i := range o.Servers {
			s := &o.Servers[i]
			specs = append(specs, balance.Spec{ID: s.Address, Tier: s.tier(), Weight: s.weight()})
			places[s.Address] = place{s, s.Address}
		}
		u.update(now, specs, places)
		return u
	}
	r := resolve.Options{SRV: o.SRV, DNS: o.DNS, Network: o.network(), Answered: u.answered}
	if o.SRV == "" {
		for _, s := range o.Servers {
			r.Hosts = append(r.Hosts, s.Address)
		}
	}
	if u.resolver, u.invalid = resolve.New(r); u.invalid != nil {
		return u
	}
	select {
	case <-u.resolver.First(): // nothing is to be looked up
		u.take(now, u.resolver.Addresses())
	default:
	}
	return u
}

// Name is the name that the configuration gives it.
func (u *Upstream) Name() string { return u.o.Name }

// URL is for people.
func (u *Upstream) URL() string { return u.o.URL }

// Timeout returns the bounds that hold for its exchanges.
func (u *Upstream) Timeout() *Timeout { return &u.o.Timeout }

// Retry says when its exchanges are tried again.
func (u *Upstream) Retry() *Retry { return &u.o.Retry }

// Breaker decides whether an exchange is worth trying. It is asked once for an exchange, and told once how it ended.
func (u *Upstream) Breaker() *breaker.Breaker { return u.breaker }

// Done tells the circuit breaker how an exchange ended that it admitted with t.
func (u *Upstream) Done(now time.Time, t breaker.Ticket, o Outcome) {
	switch o {
	case Success:
		u.breaker.Done(now, t, breaker.Success)
	case Failure:
		u.breaker.Done(now, t, breaker.Failure)
	default:
		u.breaker.Done(now, t, breaker.Abandoned)
	}
}

// Budget bounds how many exchanges are tried again.
func (u *Upstream) Budget() *breaker.Budget { return u.budget }

// Metrics returns its counters.
func (u *Upstream) Metrics() *metrics.Upstream { return u.o.Metrics }

// Len counts the endpoints, whatever their state.
func (u *Upstream) Len() int { return len(*u.list.Load()) }

// Stats counts the connections that wait for an exchange and those that carry one.
func (u *Upstream) Stats() (idle, active int) {
	for _, e := range *u.list.Load() {
		idle += e.idleConns()
	}
	return idle, int(u.active.Load())
}

// Sweep closes idle connections that are too old or that the upstream has closed, and what is left of closed ones. One
// goroutine calls it, now and then.
func (u *Upstream) Sweep(now time.Time) {
	for _, e := range *u.list.Load() {
		e.sweep(now)
	}
	u.dialer.Sweep()
}

// Retire closes what is idle, lets what is busy finish its exchange, and ends Run; nothing is kept any more. Exchanges
// that still last at cut are to be ended by whoever carries them; the zero time sets no such end.
func (u *Upstream) Retire(cut time.Time) {
	if !cut.IsZero() {
		u.cut.Store(&cut)
	}
	u.mu.Lock()
	again := u.retired
	u.retired = true
	u.mu.Unlock()
	if again {
		return
	}
	close(u.over)
	for _, e := range *u.list.Load() { // does not change any more
		e.retire()
	}
	u.dialer.Retire()
}

// Overdue reports whether exchanges with a retired Upstream are to end now.
func (u *Upstream) Overdue(now time.Time) bool {
	cut := u.cut.Load()
	return cut != nil && !now.Before(*cut)
}

// Health is what metrics show of the endpoints and of the circuit breaker.
func (u *Upstream) Health() (h metrics.Health) {
	now := time.Now()
	for _, m := range u.set.Endpoints() {
		switch m.Status(now).State {
		case balance.In:
			h.In++
		case balance.Ejected:
			h.Ejected++
		case balance.Unhealthy:
			h.Unhealthy++
		case balance.Drained:
			h.Drained++
		}
	}
	h.Breaker = breakerState(u.breaker.State())
	return h
}

func breakerState(s breaker.State) metrics.BreakerState {
	switch s {
	case breaker.Open:
		return metrics.BreakerOpen
	case breaker.HalfOpen:
		return metrics.BreakerHalfOpen
	default:
		return metrics.BreakerClosed
	}
}

// take makes the endpoints those of an answer.
func (u *Upstream) take(now time.Time, addresses []resolve.Address) {
	specs := make([]balance.Spec, 0, len(addresses))
	places := make(map[string]place, len(addresses))
	for _, a := range addresses {
		s := u.server(&a)
		if s == nil {
			continue // cannot be: it was looked up for one of them
		}
		id, p := idOf(&a), place{s, a.AddrPort.String()}
		if u.o.Proxy != nil { // takes names; those with several addresses, whose weights add up, are one endpoint
			id = net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port())))
			p.address = id
		}
		specs = append(specs, balance.Spec{ID: id, Tier: a.Priority + s.tier(), Weight: a.Weight * s.weight()})
		places[id] = p
	}
	u.update(now, specs, places)
}

// idOf is the address with the name that it was found under, if that is another.
func idOf(a *resolve.Address) string {
	if ip, err := netip.ParseAddr(a.Host); err == nil && ip.Unmap() == a.Addr() {
		return a.AddrPort.String()
	}
	return a.Host + "@" + a.AddrPort.String()
}

// server returns what is known of the server at an address.
func (u *Upstream) server(a *resolve.Address) *Server {
	if u.o.SRV != "" {
		return &u.o.Servers[0]
	}
	for i := range u.o.Servers {
		host, port, err := net.SplitHostPort(u.o.Servers[i].Address)
		if err != nil || strings.TrimSuffix(host, ".") != a.Host {
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && uint16(n) == a.Port() {
			return &u.o.Servers[i]
		}
	}
	return nil
}

// update changes the endpoints, unless nobody needs them any more.
func (u *Upstream) update(now time.Time, specs []balance.Spec, places map[string]place) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retired {
		return
	}
	u.places = places
	left := u.set.Update(now, specs)
	u.places = nil
	var list []*Endpoint
	for _, m := range u.set.Endpoints() {
		list = append(list, m.Data)
	}
	u.list.Store(&list)
	for _, m := range left {
		m.Data.retire()
	}
	select {
	case u.fresh <- struct{}{}:
	default:
	}
	u.events.wake()
}

// open makes an endpoint that joins. update holds mu.
func (u *Upstream) open(id string) *Endpoint {
	p := u.places[id]
	return newEndpoint(u, id, p.address, p.server)
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

var errNoAddress = errors.New("no address is known")
