package metrics

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

var update = flag.Bool("update", false, "rewrite golden files")

// newMetrics knows every fault there is, and has published one listener, route and upstream.
func newMetrics(t testing.TB) (*Metrics, *Publication) {
	t.Helper()
	var faults []Fault
	for _, token := range fault.Tokens() {
		faults = append(faults, Fault{Token: string(token), Blame: token.Blame().String()})
	}
	m := New(Options{Version: "1.2.3", Faults: faults, LogDropped: func() uint64 { return 7 }})
	p := &Publication{
		Generation: 3,
		Listeners:  []*Listener{m.Listener("http")},
		Exchanges:  []*Exchange{m.Exchange("http", "", ""), m.Exchange("http", "default", "ledger")},
		Upstreams: []Pool{{Upstream: m.Upstream("ledger"), Stats: func() (int, int) { return 4, 2 }, Health: func() Health {
			return Health{In: 3, Ejected: 2, Drained: 1, Breaker: BreakerHalfOpen}
		}}},
		Limits: []Limit{{Name: "connections", Stats: func() (float64, float64) { return 5, 1000 }}},
		Certificates: []Certificate{
			{Kind: "identity", Name: "default", NotAfter: time.Unix(2_000_000_000, 0)},
		},
		Admission: Admission{
			Hopeless: func() uint64 { return 0 },
			Homeless: []Homeless{{Key: "ip", Count: func() uint64 { return 0 }}},
			Store:    func() StoreStats { return StoreStats{} },
		},
	}
	m.Publish(p)
	m.ReloadResult(true, time.Unix(1_700_000_000, 500_000_000))
	return m, p
}

// scrape returns the lines of the text format, without those of the Go and process collectors.
func scrape(t *testing.T, m *Metrics) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape answered %d: %s", w.Code, w.Body)
	}
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "mtls_proxy_") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

func wantLine(t *testing.T, m *Metrics, want string) {
	t.Helper()
	lines := scrape(t, m)
	if slices.Contains(lines, want) {
		return
	}
	series, _, _ := strings.Cut(want, " ")
	for _, line := range lines {
		if strings.HasPrefix(line, series+" ") {
			t.Errorf("got  %s\nwant %s", line, want)
			return
		}
	}
	t.Errorf("no such series: %s", want)
}

func TestEverySeriesMoves(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(m *Metrics)
		want []string
	}{
		{"an exchange in progress", func(m *Metrics) { m.Exchange("http", "default", "ledger").Begin() }, []string{
			`mtls_proxy_requests_total{listener="http",route="default",upstream="ledger"} 1`,
			`mtls_proxy_requests_in_progress{listener="http",route="default",upstream="ledger"} 1`,
		}},
		{"an exchange that the upstream answered", func(m *Metrics) {
			e := m.Exchange("http", "default", "ledger")
			e.Begin()
			e.End(201, true, 30*time.Millisecond)
		}, []string{
			`mtls_proxy_requests_in_progress{listener="http",route="default",upstream="ledger"} 0`,
			`mtls_proxy_request_duration_seconds_bucket{route="default",upstream="ledger",le="0.025"} 0`,
			`mtls_proxy_request_duration_seconds_bucket{route="default",upstream="ledger",le="0.05"} 1`,
			`mtls_proxy_request_duration_seconds_sum{route="default",upstream="ledger"} 0.03`,
			`mtls_proxy_responses_total{source="upstream",upstream="ledger"} 1`,
			`mtls_proxy_responses_total{source="proxy",upstream="ledger"} 0`,
			`mtls_proxy_response_status_codes_total{code="201",upstream="ledger"} 1`,
		}},
		{"an exchange that found no route", func(m *Metrics) {
			e := m.Exchange("http", "", "")
			e.Begin()
			e.Fault("no_route")
			e.End(404, false, 0)
		}, []string{
			`mtls_proxy_requests_total{listener="http",route="-",upstream="-"} 1`,
			`mtls_proxy_responses_total{source="proxy",upstream="-"} 1`,
			`mtls_proxy_response_status_codes_total{code="404",upstream="-"} 1`,
			`mtls_proxy_errors_total{blame="caller",fault="no_route"} 1`,
			`mtls_proxy_request_errors_total{fault="no_route",upstream="-"} 1`,
		}},
		{"a status code nobody has heard of", func(m *Metrics) { m.Exchange("http", "default", "ledger").End(299, true, 0) }, []string{
			`mtls_proxy_response_status_codes_total{code="other",upstream="ledger"} 1`,
		}},
		{"bytes", func(m *Metrics) { m.Exchange("http", "default", "ledger").Bytes(512, 1024) }, []string{
			`mtls_proxy_upstream_sent_bytes_total{upstream="ledger"} 512`,
			`mtls_proxy_upstream_received_bytes_total{upstream="ledger"} 1024`,
		}},
		{"a handshake that timed out", func(m *Metrics) { m.Fault("ledger", "tls_handshake_timeout") }, []string{
			`mtls_proxy_errors_total{blame="upstream",fault="tls_handshake_timeout"} 1`,
			`mtls_proxy_request_errors_total{fault="tls_handshake_timeout",upstream="ledger"} 1`,
			`mtls_proxy_tls_errors_total{fault="tls_handshake_timeout",upstream="ledger"} 1`,
			`mtls_proxy_timeout_errors_total{phase="tls_handshake",upstream="ledger"} 1`,
			`mtls_proxy_connection_errors_total{fault="tls_handshake_timeout",upstream="ledger"} 1`,
		}},
		{"a handshake that failed while nobody waited", func(m *Metrics) { m.Upstream("ledger").HandshakeError("tls_alert") }, []string{
			`mtls_proxy_errors_total{blame="upstream",fault="tls_alert"} 1`,
			`mtls_proxy_request_errors_total{fault="tls_alert",upstream="ledger"} 0`,
			`mtls_proxy_tls_errors_total{fault="tls_alert",upstream="ledger"} 1`,
		}},
		{"a fault of an upstream that is not configured", func(m *Metrics) { m.Fault("gone", "connection_refused") }, []string{
			`mtls_proxy_errors_total{blame="upstream",fault="connection_refused"} 1`,
			`mtls_proxy_request_errors_total{fault="connection_refused",upstream="ledger"} 0`,
		}},
		{"a connection to an upstream", func(m *Metrics) {
			u := m.Upstream("ledger")
			u.Handshake(false, 30*time.Millisecond)
			u.ConnOpened()
			u.ConnReused()
			u.ConnClosed(ClosedAge)
			u.Handshake(true, 2*time.Millisecond)
		}, []string{
			`mtls_proxy_upstream_connections_opened_total{upstream="ledger"} 1`,
			`mtls_proxy_upstream_connections_reused_total{upstream="ledger"} 1`,
			`mtls_proxy_upstream_connections_closed_total{reason="age",upstream="ledger"} 1`,
			`mtls_proxy_tls_handshakes_total{resumed="no",upstream="ledger"} 1`,
			`mtls_proxy_tls_handshakes_total{resumed="yes",upstream="ledger"} 1`,
			`mtls_proxy_tls_handshake_duration_seconds_bucket{upstream="ledger",le="0.0025"} 1`,
			`mtls_proxy_tls_handshake_duration_seconds_count{upstream="ledger"} 2`,
		}},
		{"tries after the first", func(m *Metrics) {
			u := m.Upstream("ledger")
			u.Retried(RetryConnect)
			u.Retried(RetryUnavailable)
			u.Retried(RetryTimeout)
			u.RetryDenied()
		}, []string{
			`mtls_proxy_retries_total{reason="connect",upstream="ledger"} 1`,
			`mtls_proxy_retries_total{reason="503",upstream="ledger"} 1`,
			`mtls_proxy_retries_total{reason="timeout",upstream="ledger"} 1`,
			`mtls_proxy_retries_total{reason="reset",upstream="ledger"} 0`,
			`mtls_proxy_retries_denied_total{upstream="ledger"} 1`,
		}},
		{"endpoints in trouble", func(m *Metrics) {
			u := m.Upstream("ledger")
			u.Ejected()
			u.BreakerChanged(BreakerOpen)
			u.BreakerChanged(BreakerHalfOpen)
			u.HealthCheck(true)
			u.HealthCheck(false)
			u.HealthCheck(false)
			u.DNSFailed()
		}, []string{
			`mtls_proxy_endpoint_ejections_total{upstream="ledger"} 1`,
			`mtls_proxy_circuit_breaker_transitions_total{to="open",upstream="ledger"} 1`,
			`mtls_proxy_circuit_breaker_transitions_total{to="half-open",upstream="ledger"} 1`,
			`mtls_proxy_circuit_breaker_transitions_total{to="closed",upstream="ledger"} 0`,
			`mtls_proxy_health_checks_total{result="passed",upstream="ledger"} 1`,
			`mtls_proxy_health_checks_total{result="failed",upstream="ledger"} 2`,
			`mtls_proxy_dns_refresh_failures_total{upstream="ledger"} 1`,
		}},
		{"a rate limit by another key", func(m *Metrics) {
			p := *m.published.Load()
			p.RateKeys = []string{"header:X-Key"}
			m.Publish(&p)
		}, []string{
			`mtls_proxy_rate_limited_total{key="header:X-Key"} 0`,
		}},
		{"connections of callers", func(m *Metrics) {
			l := m.Listener("http")
			l.Accepted()
			l.Accepted()
			l.Closed()
			l.Refused(RefusedByLimit)
		}, []string{
			`mtls_proxy_active_connections{listener="http"} 1`,
			`mtls_proxy_connections_total{listener="http"} 2`,
			`mtls_proxy_connections_refused_total{listener="http",reason="connection_limit"} 1`,
		}},
		{"a rate limit", func(m *Metrics) { m.RateLimited("all") }, []string{
			`mtls_proxy_rate_limited_total{key="all"} 1`,
		}},
		{"a reload that was refused", func(m *Metrics) { m.ReloadResult(false, time.Unix(1_800_000_000, 0)) }, []string{
			`mtls_proxy_config_last_reload_successful 0`,
			`mtls_proxy_config_last_reload_success_timestamp_seconds 1.7000000005e+09`,
		}},
		{"what is published", func(*Metrics) {}, []string{
			`mtls_proxy_config_generation 3`,
			`mtls_proxy_config_last_reload_successful 1`,
			`mtls_proxy_upstream_connections{state="idle",upstream="ledger"} 4`,
			`mtls_proxy_upstream_connections{state="active",upstream="ledger"} 2`,
			`mtls_proxy_upstream_endpoints{state="in",upstream="ledger"} 3`,
			`mtls_proxy_upstream_endpoints{state="ejected",upstream="ledger"} 2`,
			`mtls_proxy_upstream_endpoints{state="unhealthy",upstream="ledger"} 0`,
			`mtls_proxy_upstream_endpoints{state="drained",upstream="ledger"} 1`,
			`mtls_proxy_circuit_breaker_state{state="half-open",upstream="ledger"} 1`,
			`mtls_proxy_circuit_breaker_state{state="closed",upstream="ledger"} 0`,
			`mtls_proxy_limit{limit="connections"} 1000`,
			`mtls_proxy_limit_used{limit="connections"} 5`,
			`mtls_proxy_certificate_not_after_timestamp_seconds{kind="identity",name="default"} 2e+09`,
			`mtls_proxy_log_records_dropped_total 7`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := newMetrics(t)
			tt.do(m)
			for _, want := range tt.want {
				wantLine(t, m, want)
			}
		})
	}
}

func TestCountersExistAtZeroFromTheStart(t *testing.T) {
	m, _ := newMetrics(t)
	for _, line := range scrape(t, m) {
		name, _, _ := strings.Cut(line, "{")
		name, value, _ := strings.Cut(name, " ")
		if value == "" {
			value = line[strings.LastIndexByte(line, ' ')+1:]
		}
		if strings.HasSuffix(name, "_total") && name != "mtls_proxy_log_records_dropped_total" && value != "0" {
			t.Errorf("%s before anything happened", line)
		}
	}
	for _, token := range fault.Tokens() {
		wantLine(t, m, fmt.Sprintf("mtls_proxy_errors_total{blame=%q,fault=%q} 0", token.Blame(), token))
		wantLine(t, m, fmt.Sprintf("mtls_proxy_request_errors_total{fault=%q,upstream=\"ledger\"} 0", token))
	}
}

func TestSeriesOfOneUpstreamStayFew(t *testing.T) {
	m, p := newMetrics(t)
	before := len(scrape(t, m))
	next := *p
	next.Exchanges = append(slices.Clone(p.Exchanges), m.Exchange("http", "other", "payroll"))
	next.Upstreams = append(slices.Clone(p.Upstreams), Pool{Upstream: m.Upstream("payroll"), Stats: func() (int, int) { return 0, 0 }})
	m.Publish(&next)
	if n := len(scrape(t, m)) - before; n > 260 {
		t.Errorf("one more route and upstream add %d lines to a scrape; 260 is the bound", n)
	}
}

// With thousands of routes, series at 0 would be most of a scrape.
func TestALargeConfigurationIsScrapedByWhatHappened(t *testing.T) {
	m, p := newMetrics(t)
	large := *p
	for u := range 1000 {
		name := fmt.Sprintf("upstream-%d", u)
		large.Upstreams = append(large.Upstreams, Pool{Upstream: m.Upstream(name), Stats: func() (int, int) { return 0, 0 }})
		large.Certificates = append(large.Certificates, Certificate{Kind: "identity", Name: name}, Certificate{Kind: "trust", Name: name})
		for r := range 10 {
			large.Exchanges = append(large.Exchanges, m.Exchange("http", fmt.Sprintf("/%s/route-%d", name, r), name))
		}
	}
	m.Publish(&large)
	quiet := strings.Join(scrape(t, m), "\n")
	if n := len(quiet); n > 2<<20 {
		t.Errorf("a scrape of 1,000 upstreams and 10,000 routes without any request has %d bytes; 2 MiB is the bound", n)
	}
	for _, never := range []string{`route="/upstream-7/route-3"`, `fault="response_reset",upstream="upstream-7"`} {
		if strings.Contains(quiet, never) {
			t.Errorf("a series with %s is there before anything happened", never)
		}
	}
	wantLine(t, m, `mtls_proxy_upstream_connections_opened_total{upstream="upstream-7"} 0`)

	e := m.Exchange("http", "/upstream-7/route-3", "upstream-7")
	e.Begin()
	e.Fault("response_reset")
	e.End(502, false, time.Millisecond)
	for _, want := range []string{
		`mtls_proxy_requests_total{listener="http",route="/upstream-7/route-3",upstream="upstream-7"} 1`,
		`mtls_proxy_requests_in_progress{listener="http",route="*",upstream="upstream-7"} 0`,
		`mtls_proxy_request_duration_seconds_count{route="*",upstream="upstream-7"} 1`,
		`mtls_proxy_response_status_codes_total{code="502",upstream="upstream-7"} 1`,
		`mtls_proxy_request_errors_total{fault="response_reset",upstream="upstream-7"} 1`,
		`mtls_proxy_connection_errors_total{fault="response_reset",upstream="upstream-7"} 1`,
	} {
		wantLine(t, m, want)
	}
}

// When all of thousands of routes were used, their upstreams share what is more than a counter.
func TestALargeConfigurationInUseIsScraped(t *testing.T) {
	m, p := newMetrics(t)
	large := *p
	for u := range 1000 {
		name := fmt.Sprintf("upstream-%d", u)
		large.Upstreams = append(large.Upstreams, Pool{Upstream: m.Upstream(name), Stats: func() (int, int) { return 0, 0 }})
		for r := range 10 {
			large.Exchanges = append(large.Exchanges, m.Exchange("http", fmt.Sprintf("/%s/route-%d", name, r), name))
		}
	}
	m.Publish(&large)
	for _, e := range large.Exchanges {
		e.Begin()
		e.End(200, true, time.Millisecond)
	}
	lines := scrape(t, m)
	if n := len(strings.Join(lines, "\n")); n > 5<<20 {
		t.Errorf("a scrape of 1,000 upstreams and 10,000 routes, all of them used, has %d bytes; 5 MiB is the bound", n)
	}
	wantLine(t, m, `mtls_proxy_request_duration_seconds_count{route="*",upstream="upstream-7"} 10`)
	wantLine(t, m, `mtls_proxy_requests_total{listener="http",route="/upstream-7/route-3",upstream="upstream-7"} 1`)

	// With fewer routes, each has its own again, and the shared series are gone.
	few := *p
	few.Exchanges = append(slices.Clone(p.Exchanges), large.Exchanges[len(p.Exchanges)])
	few.Upstreams = append(slices.Clone(p.Upstreams), large.Upstreams[len(p.Upstreams)])
	m.Publish(&few)
	few.Exchanges[len(p.Exchanges)].End(200, true, time.Millisecond)
	wantLine(t, m, `mtls_proxy_request_duration_seconds_count{route="/upstream-0/route-0",upstream="upstream-0"} 1`)
	for _, line := range scrape(t, m) {
		if strings.Contains(line, `route="*"`) {
			t.Errorf("still there: %s", line)
		}
	}
}

func TestSeriesLeaveWithTheConfiguration(t *testing.T) {
	m, p := newMetrics(t)
	stays := m.Exchange("http", "default", "ledger")
	stays.Begin()
	stays.End(200, true, time.Millisecond)
	leaves := m.Exchange("old", "statements", "payroll")
	payroll, old := m.Upstream("payroll"), m.Listener("old")

	with := *p
	with.Exchanges = append(slices.Clone(p.Exchanges), leaves)
	with.Upstreams = append(slices.Clone(p.Upstreams), Pool{Upstream: payroll, Stats: func() (int, int) { return 0, 0 }})
	with.Listeners = append(slices.Clone(p.Listeners), old)
	m.Publish(&with)
	leaves.Begin()
	old.Accepted()
	wantLine(t, m, `mtls_proxy_requests_in_progress{listener="old",route="statements",upstream="payroll"} 1`)

	m.Publish(p)
	// What is still under way ends on handles that nobody sees any more.
	leaves.Fault("response_truncated")
	leaves.Bytes(1, 1)
	leaves.End(502, false, time.Second)
	payroll.ConnClosed(ClosedRetired)
	old.Closed()
	m.Fault("payroll", "connection_reset")
	for _, line := range scrape(t, m) {
		if strings.Contains(line, `"payroll"`) || strings.Contains(line, `"old"`) || strings.Contains(line, `"statements"`) {
			t.Errorf("still there after the reload: %s", line)
		}
	}
	wantLine(t, m, `mtls_proxy_requests_total{listener="http",route="default",upstream="ledger"} 1`)
	if again := m.Exchange("http", "default", "ledger"); again != stays {
		t.Error("Exchange() made new counters for labels that stayed")
	}

	m.Publish(&with) // a handle that comes back late must not bring dead series back
	m.Exchange("old", "statements", "payroll")
	wantLine(t, m, `mtls_proxy_requests_in_progress{listener="old",route="statements",upstream="payroll"} 0`)
}

func TestSeriesOfARefusedReloadLeave(t *testing.T) {
	m, _ := newMetrics(t)
	m.Exchange("http", "new", "new")
	m.Listener("new")
	m.ReloadResult(false, time.Now())
	for _, line := range scrape(t, m) {
		if strings.Contains(line, `"new"`) {
			t.Errorf("still there after the refusal: %s", line)
		}
	}
}

func TestSeriesAreLintFree(t *testing.T) {
	m, _ := newMetrics(t)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// families lists every metric of ours: name, type, labels, help, separated by " | ".
func families(t *testing.T, m *Metrics) []string {
	t.Helper()
	gathered, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range gathered {
		if !strings.HasPrefix(f.GetName(), "mtls_proxy_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		lines = append(lines, fmt.Sprintf("%s | %s | %s | %s", f.GetName(), strings.ToLower(f.GetType().String()),
			strings.Join(labels, ", "), f.GetHelp()))
	}
	return lines
}

func TestNamesLabelsAndHelpStayWhatTheyWere(t *testing.T) {
	m, _ := newMetrics(t)
	got := strings.Join(families(t, m), "\n") + "\n"
	golden := filepath.Join("testdata", "families.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("dashboards depend on these; -update rewrites %s\ngot:\n%s\nwant:\n%s", golden, got, want)
	}
}

func TestDocsListEveryMetric(t *testing.T) {
	m, _ := newMetrics(t)
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "| `mtls_proxy_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	var want []string
	for _, family := range families(t, m) {
		parts := strings.SplitN(family, " | ", 4)
		labels := ""
		if parts[2] != "" {
			labels = "`" + strings.ReplaceAll(parts[2], ", ", "` `") + "`"
		}
		want = append(want, strings.Join(strings.Fields(fmt.Sprintf("| `%s` | %s | %s | %s |", parts[0], parts[1], labels, parts[3])), " "))
	}
	slices.Sort(got)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("docs/metrics.md lacks\n%s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("docs/metrics.md has what the code has not\n%s", line)
		}
	}
}

func TestDocsNameEveryReasonAndPhase(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for r := range closeReasons {
		values = append(values, r.String())
	}
	for r := range refusals {
		values = append(values, r.String())
	}
	for r := range retryReasons {
		values = append(values, r.String())
	}
	for s := range breakerStates {
		values = append(values, s.String())
	}
	for _, k := range kinds() {
		if k.timeout != "" {
			values = append(values, k.timeout)
		}
	}
	for _, v := range values {
		if !strings.Contains(string(page), "`"+v+"`") {
			t.Errorf("docs/metrics.md does not explain the label value %q", v)
		}
	}
}

func TestKindsAgreeWithTheVocabularyOfFaults(t *testing.T) {
	table := kinds()
	phases := make(map[string]string)
	for token, k := range table {
		if other := phases[k.timeout]; other != "" && k.timeout != "" {
			t.Errorf("%s and %s are both the timeout of phase %s, whose series would be there twice", token, other, k.timeout)
		}
		phases[k.timeout] = token
		if !slices.Contains(fault.Tokens(), fault.Token(token)) {
			t.Errorf("kinds has %q, which is no fault", token)
		}
	}
	for _, token := range fault.Tokens() {
		k := table[string(token)]
		if is := strings.HasPrefix(token.ProxyError(), "tls_"); is && !k.tls {
			t.Errorf("%s is %s and does not count among TLS errors", token, token.ProxyError())
		}
		if is := strings.Contains(string(token), "timeout"); is != (k.timeout != "") {
			t.Errorf("%s: timeout phase %q", token, k.timeout)
		}
		if k.tls && !k.connection {
			t.Errorf("%s is a TLS error and no connection error", token)
		}
	}
}

func TestStatusCodesAreAscending(t *testing.T) {
	if !slices.IsSorted(statusCodes[:]) {
		t.Fatal("statusIndex searches by halves; the codes must ascend")
	}
	for i, code := range statusCodes {
		if got := statusIndex(int(code)); got != i {
			t.Errorf("statusIndex(%d) = %d, want %d", code, got, i)
		}
	}
	for _, code := range []int{-1, 0, 100, 299, 512, 999} {
		if got := statusIndex(code); got != len(statusCodes) {
			t.Errorf("statusIndex(%d) = %d, want %d", code, got, len(statusCodes))
		}
	}
}

func TestReasonsHaveNamesOfTheirOwn(t *testing.T) {
	seen := make(map[string]bool)
	for r := range closeReasons {
		if seen[r.String()] {
			t.Errorf("%q twice", r)
		}
		seen[r.String()] = true
	}
	for r := range retryReasons {
		if seen[r.String()] {
			t.Errorf("%q twice", r)
		}
		seen[r.String()] = true
	}
	m, _ := newMetrics(t)
	m.Upstream("ledger").Retried(retryReasons + 3)
	m.Upstream("ledger").BreakerChanged(breakerStates + 3)
	m.Upstream("ledger").ConnClosed(closeReasons + 3)
	m.Listener("http").Refused(refusals + 3)
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	m, _ := newMetrics(t)
	e, u, l := m.Exchange("http", "default", "ledger"), m.Upstream("ledger"), m.Listener("http")
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		i++
		e.Begin()
		e.Bytes(10, 10)
		e.Fault("response_header_timeout")
		e.End(200, true, time.Duration(i%50)*time.Millisecond)
		u.ConnOpened()
		u.ConnReused()
		u.Handshake(true, time.Millisecond)
		u.HandshakeError("tls_alert")
		u.ConnClosed(ClosedIdle)
		u.Retried(RetryReset)
		u.RetryDenied()
		u.BreakerChanged(BreakerOpen)
		l.Accepted()
		l.Refused(RefusedByAccept)
		l.Closed()
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestUseAndPublishAtTheSameTime(t *testing.T) {
	m, p := newMetrics(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				e := m.Exchange("http", "default", "ledger")
				e.Begin()
				e.Fault("connection_reset")
				m.Fault("ledger", "connection_reset")
				e.End(502, false, time.Millisecond)
				m.Upstream("ledger").ConnOpened()
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			m.Publish(p)
			m.ReloadResult(false, time.Now())
			if _, err := m.registry.Gather(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	wantLine(t, m, `mtls_proxy_requests_total{listener="http",route="default",upstream="ledger"} 800`)
}

func TestHandlerSpeaksOpenMetrics(t *testing.T) {
	m, _ := newMetrics(t)
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text") && !strings.HasPrefix(got, "text/plain") {
		t.Errorf("Content-Type = %q", got)
	}
	if !strings.Contains(w.Body.String(), "go_goroutines") || !strings.Contains(w.Body.String(), "process_start_time_seconds") {
		t.Error("no figures of the Go runtime and the process")
	}
}

func BenchmarkExchange(b *testing.B) {
	m, _ := newMetrics(b)
	e := m.Exchange("http", "default", "ledger")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		e.Begin()
		e.End(200, true, time.Duration(i%1000)*100*time.Microsecond)
	}
}

func BenchmarkExchangeParallel(b *testing.B) {
	m, _ := newMetrics(b)
	e := m.Exchange("http", "default", "ledger")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e.Begin()
			e.End(200, true, time.Millisecond)
		}
	})
}
