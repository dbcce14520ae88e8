package metrics

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// tally is what every exchange counts of its upstream: words side by side, as a counter of the library is an object of its own,
// and a dozen of them in a dozen places cost an exchange as much as reading the head of its request.
type tally struct {
	reused         atomic.Uint64
	sent, received atomic.Uint64
	bySource       [2]atomic.Uint64 // ours, the upstream's
	byCode         [len(statusCodes) + 1]atomic.Uint64
}

func (t *tally) response(status int, fromUpstream bool) {
	i := 0
	if fromUpstream {
		i = 1
	}
	t.bySource[i].Add(1)
	t.byCode[statusIndex(status)].Add(1)
}

// tallyCollector shows at scrape time what was counted in words: for each exchange and for each upstream.
type tallyCollector struct {
	m *Metrics

	requests, inProgress *prometheus.Desc
	families             []family
}

// family is a metric with an upstream label. read shows each of its series, whose labels come behind that of the upstream. One that
// nothing was counted in yet is shown while there are few upstreams; with always it is shown whatever their number.
type family struct {
	desc   *prometheus.Desc
	always bool
	none   bool // it is shown for requests without an upstream as well
	read   func(u *Upstream, show func(n uint64, labels ...string))
}

func newTallyCollector(m *Metrics) *tallyCollector {
	exchange := []string{"listener", "route", "upstream"}
	return &tallyCollector{
		m: m,
		requests: prometheus.NewDesc("mtls_proxy_requests_total",
			"Requests of callers, refused and unfinished heads included, by listener, route and upstream.", exchange, nil),
		inProgress: prometheus.NewDesc("mtls_proxy_requests_in_progress",
			"Requests that have begun and not ended.", exchange, nil),
		families: upstreamFamilies(),
	}
}

func upstreamFamilies() []family {
	// enumerated has a series for each of the values of a label; plain has one.
	enumerated := func(name, help, label string, read func(u *Upstream, show func(n uint64, labels ...string))) family {
		return family{desc: prometheus.NewDesc(name, help, []string{"upstream", label}, nil), read: read}
	}
	plain := func(name, help string, count func(u *Upstream) uint64) family {
		return family{
			desc: prometheus.NewDesc(name, help, []string{"upstream"}, nil), always: true,
			read: func(u *Upstream, show func(uint64, ...string)) { show(count(u)) },
		}
	}
	withNone := func(f family) family {
		f.none = true
		return f
	}
	return []family{
		withNone(enumerated("mtls_proxy_responses_total",
			"Requests that ended, by who answered them: the upstream, or mtls-proxy itself.", "source",
			func(u *Upstream, show func(uint64, ...string)) {
				for i, source := range []string{"proxy", "upstream"} {
					show(u.tally.bySource[i].Load(), source)
				}
			})),
		withNone(enumerated("mtls_proxy_response_status_codes_total",
			"Requests that ended, by status code; 499 when the caller had gone before an answer began, \"other\" for codes without a series of their own.", "code",
			func(u *Upstream, show func(uint64, ...string)) {
				for i, code := range statusLabels() {
					show(u.tally.byCode[i].Load(), code)
				}
			})),
		withNone(enumerated("mtls_proxy_request_errors_total",
			"Requests that ended in a fault.", "fault",
			func(u *Upstream, show func(uint64, ...string)) {
				u.faults(func(i int, _ kind) { show(u.ended[i].Load(), u.table.faults[i].Token) })
			})),
		enumerated("mtls_proxy_tls_errors_total",
			"TLS handshakes with upstreams that failed, by fault.", "fault",
			func(u *Upstream, show func(uint64, ...string)) {
				u.faults(func(i int, k kind) {
					if k.tls {
						show(u.struck[i].Load(), u.table.faults[i].Token)
					}
				})
			}),
		enumerated("mtls_proxy_connection_errors_total",
			"Connections to upstreams that could not be made or broke, by fault.", "fault",
			func(u *Upstream, show func(uint64, ...string)) {
				u.faults(func(i int, k kind) {
					if k.connection {
						show(u.struck[i].Load(), u.table.faults[i].Token)
					}
				})
			}),
		withNone(enumerated("mtls_proxy_timeout_errors_total",
			"Timeouts that struck, by what was being waited for.", "phase",
			func(u *Upstream, show func(uint64, ...string)) {
				u.faults(func(i int, k kind) { // a phase has one fault, which a test holds
					if k.timeout != "" {
						show(u.struck[i].Load(), k.timeout)
					}
				})
			})),
		plain("mtls_proxy_upstream_connections_opened_total",
			"Connections to upstreams that completed their TLS handshake.", func(u *Upstream) uint64 { return u.opened.Load() }),
		plain("mtls_proxy_upstream_connections_reused_total",
			"Requests that were sent on a connection kept from an earlier one.", func(u *Upstream) uint64 { return u.tally.reused.Load() }),
		plain("mtls_proxy_upstream_sent_bytes_total",
			"Bytes of request bodies and tunnels sent to upstreams.", func(u *Upstream) uint64 { return u.tally.sent.Load() }),
		plain("mtls_proxy_upstream_received_bytes_total",
			"Bytes of response bodies and tunnels received from upstreams.", func(u *Upstream) uint64 { return u.tally.received.Load() }),
		enumerated("mtls_proxy_upstream_connections_closed_total",
			"Connections to upstreams that were closed, by reason.", "reason",
			func(u *Upstream, show func(uint64, ...string)) {
				for r := range closeReasons {
					show(u.closed[r].Load(), r.String())
				}
			}),
		enumerated("mtls_proxy_tls_handshakes_total",
			"TLS handshakes with upstreams that succeeded, by whether an earlier session was resumed.", "resumed",
			func(u *Upstream, show func(uint64, ...string)) {
				show(u.handshakes[0].Load(), "no")
				show(u.handshakes[1].Load(), "yes")
			}),
		enumerated("mtls_proxy_retries_total",
			"Tries of requests after their first, by what had become of the one before.", "reason",
			func(u *Upstream, show func(uint64, ...string)) {
				for r := range retryReasons {
					show(u.retries[r].Load(), r.String())
				}
			}),
		plain("mtls_proxy_retries_denied_total",
			"Retries that were not made because retry.budget was spent.", func(u *Upstream) uint64 { return u.retriesDenied.Load() }),
		plain("mtls_proxy_endpoint_ejections_total",
			"Endpoints put aside for a time after too many failures in a row.", func(u *Upstream) uint64 { return u.ejections.Load() }),
		enumerated("mtls_proxy_circuit_breaker_transitions_total",
			"Changes of the circuit breaker's state, by the state it changed to.", "to",
			func(u *Upstream, show func(uint64, ...string)) {
				for s := range breakerStates {
					show(u.transitions[s].Load(), s.String())
				}
			}),
		enumerated("mtls_proxy_health_checks_total",
			"Health checks of endpoints that ended, by result.", "result",
			func(u *Upstream, show func(uint64, ...string)) {
				show(u.healthChecks[0].Load(), "failed")
				show(u.healthChecks[1].Load(), "passed")
			}),
		plain("mtls_proxy_dns_refresh_failures_total",
			"Rounds of DNS lookups in which not everything could be looked up; what was known before stays in use.",
			func(u *Upstream) uint64 { return u.dnsFailures.Load() }),
	}
}

// faults calls each with every fault that can happen to u's requests.
func (u *Upstream) faults(each func(i int, k kind)) {
	for i := range u.table.faults {
		if u.name != None || u.table.concernsNone(i) {
			each(i, u.table.kinds[i])
		}
	}
}

// Describe implements prometheus.Collector.
func (c *tallyCollector) Describe(to chan<- *prometheus.Desc) {
	to <- c.requests
	to <- c.inProgress
	for _, f := range c.families {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *tallyCollector) Collect(to chan<- prometheus.Metric) {
	c.m.mu.Lock()
	exchanges, upstreams := slices.Collect(maps.Values(c.m.exchanges)), slices.Collect(maps.Values(c.m.upstreams))
	c.m.mu.Unlock()

	counter := func(d *prometheus.Desc, n uint64, since time.Time, labels ...string) {
		to <- prometheus.MustNewConstMetricWithCreatedTimestamp(d, prometheus.CounterValue, float64(n), since, labels...)
	}
	few, together := c.m.fewExchanges(), c.m.published.Load().together()
	inProgress := make(map[exchangeKey]uint64)
	for _, e := range exchanges {
		ended := e.ended.Load() // before begun, or there might be fewer of those
		begun, k := e.begun.Load(), e.key
		if begun == 0 && !few {
			continue
		}
		counter(c.requests, begun, e.since, k.listener, k.route, k.upstream)
		if together && k.route != None {
			k.route = Every
		}
		inProgress[k] += begun - ended
	}
	for k, n := range inProgress {
		to <- prometheus.MustNewConstMetric(c.inProgress, prometheus.GaugeValue, float64(n), k.listener, k.route, k.upstream)
	}
	few = c.m.fewUpstreams()
	for _, u := range upstreams {
		for _, f := range c.families {
			if u.name == None && !f.none {
				continue
			}
			f.read(u, func(n uint64, labels ...string) {
				if n > 0 || few || f.always {
					counter(f.desc, n, u.since, append([]string{u.name}, labels...)...)
				}
			})
		}
	}
}
