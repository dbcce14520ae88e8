package metrics

import (
	"sync/atomic"
	"time"
)

type exchangeKey struct{ listener, route, upstream string }

// Exchange counts the exchanges of one listener, route and upstream. It is made once, when a generation is built;
// its methods neither allocate nor lock.
type Exchange struct {
	key   exchangeKey
	since time.Time

	begun, ended atomic.Uint64
	duration     atomic.Pointer[durations] // of its route, or of all routes of its upstream; Publish decides
	upstream     *Upstream
}

// Exchange returns the counters for these labels, the same ones for as long as they stay configured. Empty route and
// upstream are for exchanges that are answered before a route is found.
func (m *Metrics) Exchange(listener, route, upstream string) *Exchange {
	k := exchangeKey{listener, orNone(route), orNone(upstream)}
	u := m.Upstream(k.upstream)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.exchanges[k]; e != nil && e.upstream == u {
		return e
	}
	e := &Exchange{key: k, since: time.Now(), upstream: u}
	e.timed(m, len(m.exchanges) >= maxTimedRoutes)
	m.exchanges[k] = e
	return e
}

// timed chooses the series that has the durations of e: that of its route, or the one that all routes of its upstream share. It
// returns the labels of that.
func (e *Exchange) timed(m *Metrics, together bool) [2]string {
	labels := [2]string{e.key.route, e.key.upstream}
	if together && e.key.route != None {
		labels[0] = Every
	}
	if d := e.duration.Load(); d == nil || d.labels[0] != labels[0] {
		e.duration.Store(m.durations.with(labels[:]...))
	}
	return labels
}

func orNone(s string) string {
	if s == "" {
		return None
	}
	return s
}

// Begin counts a request whose head is complete. Every Begin is followed by exactly one End.
func (e *Exchange) Begin() {
	e.begun.Add(1)
}

// End counts what became of the request. Status is what the caller was answered, 499 when the caller had gone;
// fromUpstream tells whether it was the upstream's answer or ours. d runs from the complete head to the last byte.
func (e *Exchange) End(status int, fromUpstream bool, d time.Duration) {
	e.ended.Add(1)
	e.duration.Load().observe(d)
	e.upstream.tally.response(status, fromUpstream)
}

// Bytes counts the bytes of bodies and tunnels that went to the upstream and came from it.
func (e *Exchange) Bytes(sent, received int64) {
	if sent > 0 {
		e.upstream.tally.sent.Add(uint64(sent))
	}
	if received > 0 {
		e.upstream.tally.received.Add(uint64(received))
	}
}

// Fault counts a fault that ended the exchange.
func (e *Exchange) Fault(token string) { e.upstream.fault(token, true) }
