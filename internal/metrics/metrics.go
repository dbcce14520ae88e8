// Package metrics holds every figure that mtls-proxy tells Prometheus: its name, its help, its labels and when it counts.
package metrics

import (
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// None is the label value for an exchange that was answered before a route or an upstream was chosen.
const None = "-"

// Every is the label value for all routes of an upstream, where there are too many for each to have series of its own.
const Every = "*"

// Options are what New needs to know about the rest of the program.
type Options struct {
	Version    string
	Faults     []Fault       // every fault that can happen, with its blame; others are not counted
	LogDropped func() uint64 // records that the log had to drop; nil when nothing can be dropped
}

// Fault names one fault token and who is to blame for it.
type Fault struct {
	Token string
	Blame string
}

// Metrics owns every collector of the process, in a registry of its own. All methods may be called at any time from any
// goroutine.
type Metrics struct {
	registry *prometheus.Registry

	durations   *durationVec // of exchanges
	handshakes  *durationVec
	reloadOK    prometheus.Gauge
	reloadTime  prometheus.Gauge
	rateLimited *prometheus.CounterVec
	listener    listenerVecs
	faults      *faultTable

	published atomic.Pointer[Publication] // what the scrape-time gauges show

	mu        sync.Mutex // guards the maps below
	exchanges map[exchangeKey]*Exchange
	upstreams map[string]*Upstream
	listeners map[string]*Listener
}

// New makes the collectors. Every series whose labels do not depend on the configuration exists from now on; the others
// appear with the first call of Exchange, Upstream or Listener that names them.
func New(o Options) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mtls_proxy_config_last_reload_successful",
			Help: "Whether the last attempt to load the configuration succeeded: 1 or 0.",
		}),
		reloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mtls_proxy_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration was last loaded successfully, in Unix time.",
		}),
		rateLimited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mtls_proxy_rate_limited_total",
			Help: "Requests answered with 429, by the key of the rate limit that refused them.",
		}, []string{"key"}),
		listener:  newListenerVecs(),
		exchanges: make(map[exchangeKey]*Exchange),
		upstreams: make(map[string]*Upstream),
		listeners: make(map[string]*Listener),
	}
	m.durations = newDurationVec("mtls_proxy_request_duration_seconds",
		"Time from the complete head of a request to the last byte of its response.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}, m.fewExchanges, "route", "upstream")
	m.handshakes = newDurationVec("mtls_proxy_tls_handshake_duration_seconds",
		"Time that successful TLS handshakes with upstreams took.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, m.fewUpstreams, "upstream")
	m.faults = newFaultTable(o.Faults)
	m.published.Store(&Publication{})
	m.rateLimited.WithLabelValues("all")

	dropped := o.LogDropped
	if dropped == nil {
		dropped = func() uint64 { return 0 }
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newTallyCollector(m), m.durations, m.handshakes, m.reloadOK, m.reloadTime, m.rateLimited, m.faults.errors,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mtls_proxy_log_records_dropped_total",
			Help: "Log records dropped because whoever reads the log was too slow.",
		}, func() float64 { return float64(dropped()) }),
		newBuildInfo(o.Version),
		newPublicationCollector(&m.published),
		newAdmissionCollector(&m.published),
	)
	m.registry.MustRegister(m.listener.collectors()...)
	m.Upstream(None)
	return m
}

func newBuildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "mtls_proxy_build_info",
		Help:        "Always 1; the labels tell the version of mtls-proxy and of the Go release that built it.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

// In small configurations every series is there from the start, at 0, so that the first event is an increase to Prometheus. In
// large ones that would be megabytes of zeros a scrape, and what is told apart by route, or by a label beside the upstream's, is
// there from its first event on.
const (
	maxInitialExchanges = 200 // by listener, route and upstream
	maxInitialUpstreams = 20
)

// maxTimedRoutes bounds the series that are for one route beside requests_total, which is one. Each histogram is 1.4 KB of a scrape,
// and as much memory.
const maxTimedRoutes = 2000 // by listener, route and upstream

func (m *Metrics) fewExchanges() bool {
	return len(m.published.Load().Exchanges) <= maxInitialExchanges
}
func (m *Metrics) fewUpstreams() bool {
	return len(m.published.Load().Upstreams) <= maxInitialUpstreams
}

// Handler answers scrapes in the text, OpenMetrics and protobuf formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// RateLimited counts one request refused by the rate limit of that key. Keys come from the configuration.
func (m *Metrics) RateLimited(key string) { m.rateLimited.WithLabelValues(key).Inc() }

// Fault counts a fault that ended an exchange, as its token demands; upstream is "" when none was chosen. A token that
// New was not told of is not counted, and an upstream that left the configuration counts in the total alone.
// [Exchange.Fault] is the faster way where an Exchange is at hand.
func (m *Metrics) Fault(upstream, token string) {
	if upstream == "" {
		upstream = None
	}
	m.mu.Lock()
	u := m.upstreams[upstream]
	m.mu.Unlock()
	if u == nil {
		u = &Upstream{table: m.faults}
	}
	u.fault(token, true)
}

// Publication is what the current generation brings to the figures.
type Publication struct {
	Generation   uint64
	Exchanges    []*Exchange // series of exchanges that are not in here disappear
	Listeners    []*Listener // likewise
	Upstreams    []Pool      // likewise
	Limits       []Limit
	Certificates []Certificate
	RateKeys     []string // of all rate limits; each counts from now on, at 0
	Admission    Admission
}

// together reports whether the routes of an upstream share all series but those of requests_total.
func (p *Publication) together() bool { return len(p.Exchanges) > maxTimedRoutes }

// Pool is an upstream with a view of its pool and of its endpoints. Both are called at every scrape and must not block.
type Pool struct {
	Upstream *Upstream
	Stats    func() (idle, active int)
	Health   func() Health // nil: the zero Health
}

// Limit is a limit of the process with a view of how much of it is used. Stats is called at every scrape and must not block.
type Limit struct {
	Name  string // "connections", "concurrent_requests", "queued_requests", "rate_limit", "rate_limit_keys"
	Stats func() (used, limit float64)
}

// Certificate is one certificate file that will expire.
type Certificate struct {
	Kind     string // "identity" or "trust"
	Name     string // the name that the configuration gives it
	NotAfter time.Time
}

// Publish makes p what scrapes show, and removes every series whose labels p no longer names. A counter whose labels stay
// never starts again. Handles of removed series may be used to their end; what they count is not shown any more.
// The caller must not change p or what it holds afterwards.
func (m *Metrics) Publish(p *Publication) {
	m.published.Store(p)
	for _, key := range p.RateKeys {
		m.rateLimited.WithLabelValues(key)
	}
	m.prune(p)
}

// ReloadResult tells how an attempt to load the configuration ended, the first one included. When it was refused,
// the series that it had prepared disappear again.
func (m *Metrics) ReloadResult(ok bool, at time.Time) {
	if ok {
		m.reloadOK.Set(1)
		m.reloadTime.Set(float64(at.UnixMilli()) / 1000)
		return
	}
	m.reloadOK.Set(0)
	m.prune(m.published.Load())
}

func (m *Metrics) prune(p *Publication) {
	m.mu.Lock()
	defer m.mu.Unlock()

	// A duration series is shared by all listeners of a route, or by all routes of an upstream, and an upstream by all of its routes.
	durations := make(map[[2]string]bool)
	upstreams := map[string]bool{None: true}
	for _, x := range p.Upstreams {
		upstreams[x.Upstream.name] = true
	}
	kept := make(map[exchangeKey]bool)
	for _, e := range p.Exchanges {
		kept[e.key] = true
		durations[e.timed(m, p.together())] = true
		upstreams[e.key.upstream] = true
	}
	maps.DeleteFunc(m.exchanges, func(k exchangeKey, _ *Exchange) bool { return !kept[k] })
	m.durations.keep(durations)
	for name := range m.upstreams {
		if !upstreams[name] {
			delete(m.upstreams, name)
			m.handshakes.remove(name)
		}
	}
	for name := range m.listeners {
		if !slices.ContainsFunc(p.Listeners, func(l *Listener) bool { return l.name == name }) {
			delete(m.listeners, name)
			m.listener.remove(name)
		}
	}
}
