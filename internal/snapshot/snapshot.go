// Package snapshot turns a configuration into what exchanges need, and publishes it.
package snapshot

import (
	"sync/atomic"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
	"github.com/mtls-proxy/mtls-proxy/internal/caller"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/route"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// Snapshot is everything an exchange needs. It is never changed once it was published.
type Snapshot struct {
	Generation uint64
	Identities []*identity.Identity // sorted by name
	Bundles    []*trust.Bundle      // sorted by name
	Table      *route.Table
	Routes     []*Route // in the order of Table's rules
	Limits     Limits
	Policy     logging.Policy
	Defaults   []http1.Default // security headers, for answers of ours
	Drain      time.Duration   // how long what a reload replaced may go on

	listeners   map[string]*Listener
	upstreams   []*upstream.Upstream // sorted by name
	publication *metrics.Publication
	shared      *shared
	settings    settings
	budgets     []*budget // of all rate limits
}

// Listener is what holds for all callers of one listener.
type Listener struct {
	Name      string
	Metrics   *metrics.Listener
	Unrouted  *metrics.Exchange   // counts exchanges that were answered before a route was found
	Exchanges []*metrics.Exchange // counts those of each route; nil for a route that is not for this listener
	Guarded   bool                // web pages are kept out

	// Shares bounds the connections of each caller, by user or address; its limit is 0 where nothing does. The listener of
	// that name has the same one in all generations: whoever entered leaves this one.
	Shares *admission.Shares

	shareLimit int
	hosts      map[string]bool // in lower case; the ports that they are allowed with are not looked at
	anyHost    bool
	upstreams  map[string]bool // server names of upstreams, of all listeners
	origins    map[string]bool // lower case
}

// AllowsHost reports whether callers may name host, which is in lower case and without a port.
func (l *Listener) AllowsHost(host []byte) bool { return l.anyHost || l.hosts[string(host)] }

// NamesUpstream reports whether host, in lower case and without a port, is an upstream's server name. To a browser that was made to take
// us for that server, a page of that name is of our own origin; so it is good only where no browser puts it.
func (l *Listener) NamesUpstream(host []byte) bool { return l.upstreams[string(host)] }

// AllowsOrigin reports whether pages of that origin, in lower case, may call.
func (l *Listener) AllowsOrigin(origin []byte) bool { return l.origins[string(origin)] }

// Route is where a rule leads, and what changes on the way.
type Route struct {
	Name     string
	Upstream *upstream.Upstream
	MaxBody  int64                 // bytes that a request's body may have
	OwnHost  bool                  // the upstream is sent the caller's Host
	Rate     *Rate                 // beside that of Limits; nil: none
	Request  http1.RequestRewrite  // what holds for all callers of it; without Host where Endpoint.Host tells it
	Response http1.ResponseRewrite // likewise
}

// Limits bound what all callers together take.
type Limits struct {
	UnixHTTP      http1.Limits // HTTP, for requests through Unix sockets
	HTTP          http1.Limits
	HeaderTimeout time.Duration // for a request's head
	IdleTimeout   time.Duration // between requests
	QueueTimeout  time.Duration // for a place among Requests
	Connections   *admission.Gate
	Requests      *admission.Gate
	Rate          *Rate        // never nil
	Callers       caller.Facts // what this generation has to know about callers
}

// shared is what outlives a generation: how much of a limit is used, and memory.
type shared struct {
	connections *admission.Gate
	requests    *admission.Gate
	buffers     *conn.Buffers
}

// settings are what shared is brought to when the generation is published.
type settings struct {
	connections, requests int
}

// Listener returns what holds for the listener of that name, nil when the configuration has none.
func (s *Snapshot) Listener(name string) *Listener { return s.listeners[name] }

// Upstreams returns the upstreams, sorted by name.
func (s *Snapshot) Upstreams() []*upstream.Upstream { return s.upstreams }

// Publication returns what metrics show of this generation.
func (s *Snapshot) Publication() *metrics.Publication { return s.publication }

// Buffers lends memory to whoever carries exchanges.
func (s *Snapshot) Buffers() *conn.Buffers { return s.shared.buffers }

// Retire lets go of what s has and next has not: idle connections are closed now, busy ones after their exchange, which
// may last for next's Drain; shared budgets are let go of now. A nil next lets go of everything and bounds nothing.
// A snapshot that is not to be published is let go of with the one that serves as next. It may be called again.
func (s *Snapshot) Retire(next *Snapshot) {
	var cut time.Time
	if next != nil {
		cut = time.Now().Add(next.Drain)
	}
	kept := indexOf(next)
	for _, u := range s.upstreams {
		if kept.upstreams[u.Name()] != u {
			u.Retire(cut)
		}
	}
	for _, b := range s.budgets {
		if kept.budgets[b.id] != b {
			b.close()
		}
	}
}

// Store publishes the current Snapshot. Readers never wait and never see a mixture.
type Store struct {
	p       atomic.Pointer[Snapshot]
	leaving atomic.Pointer[Snapshot] // the one before, if it has listeners that the current one has not
}

// Current returns the Snapshot that serves, nil before the first one.
func (s *Store) Current() *Snapshot { return s.p.Load() }

// Serving returns the Snapshot for a connection just accepted on that listener: the current one, or the one before if the listener
// left with that and is about to be closed. It is nil when both have no such listener.
func (s *Store) Serving(listener string) *Snapshot {
	now := s.Current()
	if now == nil || now.Listener(listener) != nil {
		return now
	}
	if before := s.leaving.Load(); before != nil && before.Listener(listener) != nil {
		return before
	}
	return nil
}

// Publish makes next current and returns the one that was. Limits change in the same moment; who is inside stays.
func (s *Store) Publish(next *Snapshot) (old *Snapshot) {
	if old = s.p.Load(); old != nil && old.loses(next) {
		s.leaving.Store(old) // first, so that those listeners find one of both
		s.p.Store(next)
	} else {
		s.p.Store(next)
		s.leaving.Store(nil)
	}
	if limits := next.shared; limits != nil { // nil: Build did not make it
		limits.connections.SetLimit(next.settings.connections)
		limits.requests.SetLimit(next.settings.requests)
		next.Limits.Rate.apply()
		for _, r := range next.Routes {
			if r.Rate != nil {
				r.Rate.apply()
			}
		}
		for _, l := range next.listeners {
			l.Shares.SetLimit(l.shareLimit)
		}
	}
	return old
}

// loses reports whether s has a listener that next has not.
func (s *Snapshot) loses(next *Snapshot) bool {
	for name := range s.listeners {
		if next.listeners[name] == nil {
			return true
		}
	}
	return false
}
