package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Admission is what limits count by themselves, beside how much of them is used. Its functions are called at every scrape
// and must not block. What they count only grows as long as the limit stays configured.
type Admission struct {
	Hopeless func() uint64     // requests that were refused at once, as the queue would not have served them in time
	Homeless []Homeless        // one for each key
	Store    func() StoreStats // of the shared rate limit; nil: there is none
}

// Homeless counts requests that were judged by a budget that callers share, because there was no room for one more.
type Homeless struct {
	Key   string // of the rate limits
	Count func() uint64
}

// StoreStats is how the store of a shared rate limit fares.
type StoreStats struct {
	Away                           bool
	Slices, Trips, Failed, Without uint64
}

// admissionCollector shows at scrape time what limits have counted.
type admissionCollector struct {
	current *atomic.Pointer[Publication]

	hopeless, homeless                 *prometheus.Desc
	up, slices, trips, failed, without *prometheus.Desc
}

func newAdmissionCollector(current *atomic.Pointer[Publication]) *admissionCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &admissionCollector{
		current: current,
		hopeless: desc("mtls_proxy_queue_refused_total",
			"Requests answered with 503 at once, because those before them in the queue would have taken longer than queue_timeout."),
		homeless: desc("mtls_proxy_rate_limit_homeless_total",
			"Requests judged by a budget that callers share, because there was no room for one more.", "key"),
		up: desc("mtls_proxy_rate_limit_store_up",
			"Whether the store of the shared rate limit answers: 1 or 0; only where there is one."),
		slices: desc("mtls_proxy_rate_limit_store_slices_total",
			"Slices of the shared budget that were asked for; each serves several requests."),
		trips: desc("mtls_proxy_rate_limit_store_round_trips_total",
			"Round trips to the store of the shared rate limit, each for any number of slices."),
		failed: desc("mtls_proxy_rate_limit_store_failures_total",
			"Attempts to reach the store of the shared rate limit, or to get an answer, that failed."),
		without: desc("mtls_proxy_rate_limit_store_missed_total",
			"Requests judged without the store of the shared rate limit, as shared_failure says."),
	}
}

func (c *admissionCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.hopeless, c.homeless, c.up, c.slices, c.trips, c.failed, c.without} {
		ch <- d
	}
}

func (c *admissionCollector) Collect(ch chan<- prometheus.Metric) {
	a := c.current.Load().Admission
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	if a.Hopeless != nil {
		count(c.hopeless, a.Hopeless())
	}
	for _, h := range a.Homeless {
		count(c.homeless, h.Count(), h.Key)
	}
	if a.Store == nil {
		return
	}
	s, up := a.Store(), 1.0
	if s.Away {
		up = 0
	}
	ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up)
	count(c.slices, s.Slices)
	count(c.trips, s.Trips)
	count(c.failed, s.Failed)
	count(c.without, s.Without)
}
