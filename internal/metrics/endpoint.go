package metrics

import "github.com/prometheus/client_golang/prometheus"

// RetryReason is why a request is tried again. The names are those of retry.on.
type RetryReason uint8

const (
	RetryConnect     RetryReason = iota // no connection came about
	RetryUnsent                         // a kept connection was closed before any of the request was sent
	RetryReset                          // the connection ended before a byte of the response
	RetryBadGateway                     // 502
	RetryUnavailable                    // 503
	RetryGateway                        // 504
	RetryTimeout                        // the try took too long
	retryReasons
)

func (r RetryReason) String() string {
	switch r {
	case RetryConnect:
		return "connect"
	case RetryUnsent:
		return "unsent"
	case RetryReset:
		return "reset"
	case RetryBadGateway:
		return "502"
	case RetryUnavailable:
		return "503"
	case RetryGateway:
		return "504"
	default:
		return "timeout"
	}
}

// BreakerState is what a circuit breaker does with requests.
type BreakerState uint8

const (
	BreakerClosed   BreakerState = iota // all go ahead
	BreakerOpen                         // none does
	BreakerHalfOpen                     // a few do, and decide
	breakerStates
)

func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerOpen:
		return "open"
	default:
		return "half-open"
	}
}

// Health is how an upstream is at the moment of a scrape: its endpoints, each counted once, and its circuit breaker.
type Health struct {
	In, Ejected, Unhealthy, Drained int
	Breaker                         BreakerState
}

// Retried counts a try after the first.
func (u *Upstream) Retried(why RetryReason) { u.retries[min(why, retryReasons-1)].Add(1) }

// RetryDenied counts a try that the budget did not allow.
func (u *Upstream) RetryDenied() { u.retriesDenied.Add(1) }

// Ejected counts an endpoint that was put aside.
func (u *Upstream) Ejected() { u.ejections.Add(1) }

// BreakerChanged counts a change of the circuit breaker's state.
func (u *Upstream) BreakerChanged(to BreakerState) { u.transitions[min(to, breakerStates-1)].Add(1) }

// HealthCheck counts a health check that ended.
func (u *Upstream) HealthCheck(passed bool) {
	i := 0
	if passed {
		i = 1
	}
	u.healthChecks[i].Add(1)
}

// DNSFailed counts a round of lookups in which one failed.
func (u *Upstream) DNSFailed() { u.dnsFailures.Add(1) }

// healthDescs are the figures that Health comes to.
type healthDescs struct{ endpoints, breaker *prometheus.Desc }

func newHealthDescs() healthDescs {
	return healthDescs{
		endpoints: prometheus.NewDesc("mtls_proxy_upstream_endpoints",
			"Endpoints of upstreams, by whether requests are sent to them.", []string{"upstream", "state"}, nil),
		breaker: prometheus.NewDesc("mtls_proxy_circuit_breaker_state",
			"Whether the circuit breaker is in that state: 1 or 0.", []string{"upstream", "state"}, nil),
	}
}

func (d healthDescs) show(gauge func(d *prometheus.Desc, v float64, labels ...string), upstream string, h Health) {
	gauge(d.endpoints, float64(h.In), upstream, "in")
	gauge(d.endpoints, float64(h.Ejected), upstream, "ejected")
	gauge(d.endpoints, float64(h.Unhealthy), upstream, "unhealthy")
	gauge(d.endpoints, float64(h.Drained), upstream, "drained")
	for s := range breakerStates {
		v := 0.0
		if s == h.Breaker {
			v = 1
		}
		gauge(d.breaker, v, upstream, s.String())
	}
}
