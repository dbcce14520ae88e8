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

// tallyCollector shows at scrape time what exchanges have counted.
type tallyCollector struct {
	m *Metrics

	requests, inProgress   *prometheus.Desc
	responses, codes       *prometheus.Desc
	reused, sent, received *prometheus.Desc
}

func newTallyCollector(m *Metrics) *tallyCollector {
	exchange := []string{"listener", "route", "upstream"}
	return &tallyCollector{
		m: m,
		requests: prometheus.NewDesc("mtls_proxy_requests_total",
			"Requests of callers whose head was complete, by listener, route and upstream.", exchange, nil),
		inProgress: prometheus.NewDesc("mtls_proxy_requests_in_progress",
			"Requests that have begun and not ended.", exchange, nil),
		responses: prometheus.NewDesc("mtls_proxy_responses_total",
			"Requests that ended, by who answered them: the upstream, or mtls-proxy itself.", []string{"upstream", "source"}, nil),
		codes: prometheus.NewDesc("mtls_proxy_response_status_codes_total",
			"Requests that ended, by status code; 499 when the caller had gone, \"other\" for codes without a series of their own.",
			[]string{"upstream", "code"}, nil),
		reused: prometheus.NewDesc("mtls_proxy_upstream_connections_reused_total",
			"Requests that were sent on a connection kept from an earlier one.", []string{"upstream"}, nil),
		sent: prometheus.NewDesc("mtls_proxy_upstream_sent_bytes_total",
			"Bytes of request bodies and tunnels sent to upstreams.", []string{"upstream"}, nil),
		received: prometheus.NewDesc("mtls_proxy_upstream_received_bytes_total",
			"Bytes of response bodies and tunnels received from upstreams.", []string{"upstream"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *tallyCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.requests, c.inProgress, c.responses, c.codes, c.reused, c.sent, c.received} {
		to <- d
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
	for _, e := range exchanges {
		ended := e.ended.Load() // before begun, or there might be fewer of those
		begun, k := e.begun.Load(), e.key
		counter(c.requests, begun, e.since, k.listener, k.route, k.upstream)
		to <- prometheus.MustNewConstMetric(c.inProgress, prometheus.GaugeValue, float64(begun-ended), k.listener, k.route, k.upstream)
	}
	codes := statusLabels()
	for _, u := range upstreams {
		t := &u.tally
		for i, source := range []string{"proxy", "upstream"} {
			counter(c.responses, t.bySource[i].Load(), u.since, u.name, source)
		}
		for i, code := range codes {
			counter(c.codes, t.byCode[i].Load(), u.since, u.name, code)
		}
		if u.name == None { // has no connections
			continue
		}
		counter(c.reused, t.reused.Load(), u.since, u.name)
		counter(c.sent, t.sent.Load(), u.since, u.name)
		counter(c.received, t.received.Load(), u.since, u.name)
	}
}
