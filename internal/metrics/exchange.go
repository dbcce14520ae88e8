package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type exchangeKey struct{ listener, route, upstream string }

// Exchange counts the exchanges of one listener, route and upstream. It is made once, when a generation is built;
// its methods neither allocate nor lock.
type Exchange struct {
	key        exchangeKey
	requests   prometheus.Counter
	inProgress prometheus.Gauge
	duration   prometheus.Observer
	upstream   *Upstream
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
	e := &Exchange{
		key:        k,
		requests:   m.requests.WithLabelValues(k.listener, k.route, k.upstream),
		inProgress: m.inProgress.WithLabelValues(k.listener, k.route, k.upstream),
		duration:   m.duration.WithLabelValues(k.route, k.upstream),
		upstream:   u,
	}
	m.exchanges[k] = e
	return e
}

func orNone(s string) string {
	if s == "" {
		return None
	}
	return s
}

// Begin counts a request whose head is complete. Every Begin is followed by exactly one End.
func (e *Exchange) Begin() {
	e.requests.Inc()
	e.inProgress.Inc()
}

// End counts what became of the request. Status is what the caller was answered, 499 when the caller had gone;
// fromUpstream tells whether it was the upstream's answer or ours. d runs from the complete head to the last byte.
func (e *Exchange) End(status int, fromUpstream bool, d time.Duration) {
	e.inProgress.Dec()
	e.duration.Observe(d.Seconds())
	e.upstream.response(status, fromUpstream)
}

// Bytes counts the bytes of bodies and tunnels that went to the upstream and came from it.
func (e *Exchange) Bytes(sent, received int64) {
	if sent > 0 {
		e.upstream.sent.Add(float64(sent))
	}
	if received > 0 {
		e.upstream.received.Add(float64(received))
	}
}

// Fault counts a fault that ended the exchange.
func (e *Exchange) Fault(token string) { e.upstream.fault(token, true) }
