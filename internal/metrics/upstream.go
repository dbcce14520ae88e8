package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// CloseReason is why a connection to an upstream was closed.
type CloseReason uint8

const (
	ClosedIdle       CloseReason = iota // unused for longer than pool.idle_timeout
	ClosedAge                           // older than pool.max_age
	ClosedFull                          // more idle connections than pool.max_idle
	ClosedByUpstream                    // the upstream closed it, or was found to have closed it
	ClosedByResponse                    // the response did not permit another request
	ClosedCallerGone                    // the caller left in the middle of its exchange
	ClosedFault                         // an exchange on it failed
	ClosedTunnel                        // it carried an upgraded connection to its end
	ClosedRetired                       // a reload replaced the pool, or the process stops
	closeReasons
)

func (r CloseReason) String() string {
	switch r {
	case ClosedIdle:
		return "idle"
	case ClosedAge:
		return "age"
	case ClosedFull:
		return "pool_full"
	case ClosedByUpstream:
		return "upstream"
	case ClosedByResponse:
		return "response"
	case ClosedCallerGone:
		return "caller_gone"
	case ClosedTunnel:
		return "tunnel"
	case ClosedRetired:
		return "retired"
	default:
		return "fault"
	}
}

// upstreamVecs are the collectors with an upstream label.
type upstreamVecs struct {
	requestErrors     *prometheus.CounterVec
	tlsErrors         *prometheus.CounterVec
	timeoutErrors     *prometheus.CounterVec
	connectionErrors  *prometheus.CounterVec
	opened            *prometheus.CounterVec
	closed            *prometheus.CounterVec
	handshakes        *prometheus.CounterVec
	handshakeDuration *prometheus.HistogramVec

	retries       *prometheus.CounterVec
	retriesDenied *prometheus.CounterVec
	ejections     *prometheus.CounterVec
	transitions   *prometheus.CounterVec
	healthChecks  *prometheus.CounterVec
	dnsFailures   *prometheus.CounterVec
}

func newUpstreamVecs() upstreamVecs {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"upstream"}, labels...))
	}
	return upstreamVecs{
		requestErrors: counter("mtls_proxy_request_errors_total",
			"Requests that ended in a fault.", "fault"),
		tlsErrors: counter("mtls_proxy_tls_errors_total",
			"TLS handshakes with upstreams that failed, by fault.", "fault"),
		timeoutErrors: counter("mtls_proxy_timeout_errors_total",
			"Timeouts that struck, by what was being waited for.", "phase"),
		connectionErrors: counter("mtls_proxy_connection_errors_total",
			"Connections to upstreams that could not be made or broke, by fault.", "fault"),
		opened: counter("mtls_proxy_upstream_connections_opened_total",
			"Connections to upstreams that completed their TLS handshake."),
		closed: counter("mtls_proxy_upstream_connections_closed_total",
			"Connections to upstreams that were closed, by reason.", "reason"),
		handshakes: counter("mtls_proxy_tls_handshakes_total",
			"TLS handshakes with upstreams that succeeded, by whether an earlier session was resumed.", "resumed"),
		handshakeDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "mtls_proxy_tls_handshake_duration_seconds",
			Help:    "Time that successful TLS handshakes with upstreams took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"upstream"}),
		retries: counter("mtls_proxy_retries_total",
			"Tries of requests after their first, by what had become of the one before.", "reason"),
		retriesDenied: counter("mtls_proxy_retries_denied_total",
			"Retries that were not made because retry.budget was spent."),
		ejections: counter("mtls_proxy_endpoint_ejections_total",
			"Endpoints put aside for a time after too many failures in a row."),
		transitions: counter("mtls_proxy_circuit_breaker_transitions_total",
			"Changes of the circuit breaker's state, by the state it changed to.", "to"),
		healthChecks: counter("mtls_proxy_health_checks_total",
			"Health checks of endpoints that ended, by result.", "result"),
		dnsFailures: counter("mtls_proxy_dns_refresh_failures_total",
			"Rounds of DNS lookups in which not everything could be looked up; what was known before stays in use."),
	}
}

func (v *upstreamVecs) counters() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{v.requestErrors, v.tlsErrors, v.timeoutErrors, v.connectionErrors,
		v.opened, v.closed, v.handshakes,
		v.retries, v.retriesDenied, v.ejections, v.transitions, v.healthChecks, v.dnsFailures}
}

func (v *upstreamVecs) collectors() []prometheus.Collector {
	all := []prometheus.Collector{v.handshakeDuration}
	for _, c := range v.counters() {
		all = append(all, c)
	}
	return all
}

func (v *upstreamVecs) remove(name string) {
	is := prometheus.Labels{"upstream": name}
	v.handshakeDuration.DeletePartialMatch(is)
	for _, c := range v.counters() {
		c.DeletePartialMatch(is)
	}
}

// Upstream counts what happens with one upstream and its connections. Its methods neither allocate nor lock.
type Upstream struct {
	name  string
	since time.Time
	tally tally

	table   *faultTable
	byFault []faultCounters // in the order of table

	opened            prometheus.Counter
	closed            [closeReasons]prometheus.Counter
	handshakes        [2]prometheus.Counter // full, resumed
	handshakeDuration prometheus.Observer

	retries       [retryReasons]prometheus.Counter
	retriesDenied prometheus.Counter
	ejections     prometheus.Counter
	transitions   [breakerStates]prometheus.Counter
	healthChecks  [2]prometheus.Counter // failed, passed
	dnsFailures   prometheus.Counter
}

// Upstream returns the counters of the upstream of that name, the same ones for as long as it stays configured.
func (m *Metrics) Upstream(name string) *Upstream {
	name = orNone(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.upstreams[name]; u != nil {
		return u
	}
	v := &m.upstream
	u := &Upstream{name: name, since: time.Now(), table: m.faults}
	u.byFault = m.faults.counters(v, name)
	if name == None { // has no connections: nothing below is shown
		hidden := newUpstreamVecs()
		v = &hidden
	}
	u.opened = v.opened.WithLabelValues(name)
	for r := range closeReasons {
		u.closed[r] = v.closed.WithLabelValues(name, r.String())
	}
	u.handshakes = [2]prometheus.Counter{v.handshakes.WithLabelValues(name, "no"), v.handshakes.WithLabelValues(name, "yes")}
	u.handshakeDuration = v.handshakeDuration.WithLabelValues(name)
	for r := range retryReasons {
		u.retries[r] = v.retries.WithLabelValues(name, r.String())
	}
	for s := range breakerStates {
		u.transitions[s] = v.transitions.WithLabelValues(name, s.String())
	}
	u.healthChecks = [2]prometheus.Counter{v.healthChecks.WithLabelValues(name, "failed"), v.healthChecks.WithLabelValues(name, "passed")}
	u.retriesDenied, u.ejections, u.dnsFailures = v.retriesDenied.WithLabelValues(name), v.ejections.WithLabelValues(name), v.dnsFailures.WithLabelValues(name)
	m.upstreams[name] = u
	return u
}

// Name is the label that these counters carry.
func (u *Upstream) Name() string { return u.name }

// ConnOpened counts a connection that is ready for its first request.
func (u *Upstream) ConnOpened() { u.opened.Inc() }

// ConnReused counts a request sent on a connection that was kept.
func (u *Upstream) ConnReused() { u.tally.reused.Add(1) }

// ConnClosed counts the end of a connection that ConnOpened counted.
func (u *Upstream) ConnClosed(why CloseReason) {
	u.closed[min(why, closeReasons-1)].Inc()
}

// Handshake counts a TLS handshake that succeeded and the time it took.
func (u *Upstream) Handshake(resumed bool, d time.Duration) {
	i := 0
	if resumed {
		i = 1
	}
	u.handshakes[i].Inc()
	u.handshakeDuration.Observe(d.Seconds())
}

// HandshakeError counts a failure to connect that ended no exchange, because another try or nobody waited for it.
// Those that did end one are counted by Fault.
func (u *Upstream) HandshakeError(token string) { u.fault(token, false) }

func (u *Upstream) fault(token string, endedExchange bool) {
	i, ok := u.table.index[token]
	if !ok {
		return
	}
	u.table.total[i].Inc()
	if u.byFault == nil {
		return
	}
	c := &u.byFault[i]
	if endedExchange {
		c.request.Inc()
	}
	for _, also := range c.also {
		if also != nil {
			also.Inc()
		}
	}
}
