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
	responses         *prometheus.CounterVec
	codes             *prometheus.CounterVec
	requestErrors     *prometheus.CounterVec
	tlsErrors         *prometheus.CounterVec
	timeoutErrors     *prometheus.CounterVec
	connectionErrors  *prometheus.CounterVec
	opened            *prometheus.CounterVec
	closed            *prometheus.CounterVec
	reused            *prometheus.CounterVec
	handshakes        *prometheus.CounterVec
	handshakeDuration *prometheus.HistogramVec
	sent              *prometheus.CounterVec
	received          *prometheus.CounterVec

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
		responses: counter("mtls_proxy_responses_total",
			"Requests that ended, by who answered them: the upstream, or mtls-proxy itself.", "source"),
		codes: counter("mtls_proxy_response_status_codes_total",
			"Requests that ended, by status code; 499 when the caller had gone, \"other\" for codes without a series of their own.", "code"),
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
		reused: counter("mtls_proxy_upstream_connections_reused_total",
			"Requests that were sent on a connection kept from an earlier one."),
		handshakes: counter("mtls_proxy_tls_handshakes_total",
			"TLS handshakes with upstreams that succeeded, by whether an earlier session was resumed.", "resumed"),
		handshakeDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "mtls_proxy_tls_handshake_duration_seconds",
			Help:    "Time that successful TLS handshakes with upstreams took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"upstream"}),
		sent: counter("mtls_proxy_upstream_sent_bytes_total",
			"Bytes of request bodies and tunnels sent to upstreams."),
		received: counter("mtls_proxy_upstream_received_bytes_total",
			"Bytes of response bodies and tunnels received from upstreams."),
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
	return []*prometheus.CounterVec{v.responses, v.codes, v.requestErrors, v.tlsErrors, v.timeoutErrors, v.connectionErrors,
		v.opened, v.closed, v.reused, v.handshakes, v.sent, v.received,
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
	table *faultTable

	bySource [2]prometheus.Counter // ours, the upstream's
	byCode   [len(statusCodes) + 1]prometheus.Counter
	byFault  []faultCounters // in the order of table

	opened            prometheus.Counter
	closed            [closeReasons]prometheus.Counter
	reused            prometheus.Counter
	handshakes        [2]prometheus.Counter // full, resumed
	handshakeDuration prometheus.Observer
	sent, received    prometheus.Counter

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
	u := &Upstream{name: name, table: m.faults}
	u.bySource = [2]prometheus.Counter{v.responses.WithLabelValues(name, "proxy"), v.responses.WithLabelValues(name, "upstream")}
	for i, code := range statusLabels() {
		u.byCode[i] = v.codes.WithLabelValues(name, code)
	}
	u.byFault = m.faults.counters(v, name)
	if name == None { // has no connections: nothing below is shown
		hidden := newUpstreamVecs()
		v = &hidden
	}
	u.sent, u.received = v.sent.WithLabelValues(name), v.received.WithLabelValues(name)
	u.opened, u.reused = v.opened.WithLabelValues(name), v.reused.WithLabelValues(name)
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
func (u *Upstream) ConnReused() { u.reused.Inc() }

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

func (u *Upstream) response(status int, fromUpstream bool) {
	i := 0
	if fromUpstream {
		i = 1
	}
	u.bySource[i].Inc()
	u.byCode[statusIndex(status)].Inc()
}

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
