package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// publicationCollector shows at scrape time what the current generation holds: pools, limits, certificates.
type publicationCollector struct {
	current *atomic.Pointer[Publication]

	generation  *prometheus.Desc
	connections *prometheus.Desc
	health      healthDescs
	limit       *prometheus.Desc
	used        *prometheus.Desc
	notAfter    *prometheus.Desc
}

func newPublicationCollector(current *atomic.Pointer[Publication]) *publicationCollector {
	return &publicationCollector{
		current: current,
		generation: prometheus.NewDesc("mtls_proxy_config_generation",
			"Number of the configuration generation that serves; it grows by one with each successful reload.", nil, nil),
		connections: prometheus.NewDesc("mtls_proxy_upstream_connections",
			"Connections to upstreams that are open, by whether a request is using them.", []string{"upstream", "state"}, nil),
		health: newHealthDescs(),
		limit: prometheus.NewDesc("mtls_proxy_limit",
			"What a limit permits; 0 when it is off.", []string{"limit"}, nil),
		used: prometheus.NewDesc("mtls_proxy_limit_used",
			"How much of a limit is used.", []string{"limit"}, nil),
		notAfter: prometheus.NewDesc("mtls_proxy_certificate_not_after_timestamp_seconds",
			"When the first certificate of an identity's chain or of a trust bundle expires, in Unix time.", []string{"kind", "name"}, nil),
	}
}

func (c *publicationCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.generation, c.connections, c.health.endpoints, c.health.breaker, c.limit, c.used, c.notAfter} {
		ch <- d
	}
}

func (c *publicationCollector) Collect(ch chan<- prometheus.Metric) {
	p := c.current.Load()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.generation, float64(p.Generation))
	for _, pool := range p.Upstreams {
		idle, active := pool.Stats()
		gauge(c.connections, float64(idle), pool.Upstream.name, "idle")
		gauge(c.connections, float64(active), pool.Upstream.name, "active")
		var health Health
		if pool.Health != nil {
			health = pool.Health()
		}
		c.health.show(gauge, pool.Upstream.name, health)
	}
	for _, l := range p.Limits {
		used, limit := l.Stats()
		gauge(c.limit, limit, l.Name)
		gauge(c.used, used, l.Name)
	}
	for _, cert := range p.Certificates {
		gauge(c.notAfter, float64(cert.NotAfter.Unix()), cert.Kind, cert.Name)
	}
}
