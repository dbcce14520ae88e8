package metrics

import "github.com/prometheus/client_golang/prometheus"

// Health is how an upstream is at the moment of a scrape: its endpoints, each counted once.
type Health struct {
	In, Ejected, Unhealthy, Drained int
}

// Ejected counts an endpoint that was put aside.
func (u *Upstream) Ejected() { u.ejections.Inc() }

// HealthCheck counts a health check that ended.
func (u *Upstream) HealthCheck(passed bool) {
	i := 0
	if passed {
		i = 1
	}
	u.healthChecks[i].Inc()
}

// DNSFailed counts a round of lookups in which one failed.
func (u *Upstream) DNSFailed() { u.dnsFailures.Inc() }

// healthDescs are the figures that Health comes to.
type healthDescs struct{ endpoints *prometheus.Desc }

func newHealthDescs() healthDescs {
	return healthDescs{
		endpoints: prometheus.NewDesc("mtls_proxy_upstream_endpoints",
			"Endpoints of upstreams, by whether requests are sent to them.", []string{"upstream", "state"}, nil),
	}
}

func (d healthDescs) show(gauge func(d *prometheus.Desc, v float64, labels ...string), upstream string, h Health) {
	gauge(d.endpoints, float64(h.In), upstream, "in")
	gauge(d.endpoints, float64(h.Ejected), upstream, "ejected")
	gauge(d.endpoints, float64(h.Unhealthy), upstream, "unhealthy")
	gauge(d.endpoints, float64(h.Drained), upstream, "drained")
}
