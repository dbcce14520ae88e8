package metrics

import (
	"strings"
	"testing"
)

func TestLimitsShowWhatTheyCounted(t *testing.T) {
	m, p := newMetrics(t)
	wantLine(t, m, `mtls_proxy_rate_limit_store_up 1`)
	next := *p
	next.Admission = Admission{
		Hopeless: func() uint64 { return 3 },
		Homeless: []Homeless{{Key: "ip", Count: func() uint64 { return 4 }}, {Key: "header:X-Key", Count: func() uint64 { return 5 }}},
		Store:    func() StoreStats { return StoreStats{Away: true, Slices: 6, Trips: 7, Failed: 8, Without: 9} },
	}
	m.Publish(&next)
	for _, want := range []string{
		`mtls_proxy_queue_refused_total 3`,
		`mtls_proxy_rate_limit_homeless_total{key="ip"} 4`,
		`mtls_proxy_rate_limit_homeless_total{key="header:X-Key"} 5`,
		`mtls_proxy_rate_limit_store_up 0`,
		`mtls_proxy_rate_limit_store_slices_total 6`,
		`mtls_proxy_rate_limit_store_round_trips_total 7`,
		`mtls_proxy_rate_limit_store_failures_total 8`,
		`mtls_proxy_rate_limit_store_missed_total 9`,
	} {
		wantLine(t, m, want)
	}
	next.Admission.Store = nil
	m.Publish(&next)
	for _, line := range scrape(t, m) {
		if strings.HasPrefix(line, "mtls_proxy_rate_limit_store_") {
			t.Errorf("without a store there is %s", line)
		}
	}
}
