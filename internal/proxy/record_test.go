package proxy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

const secret = "s3cr3t"

// A fault leaves one record with all facts and nothing that is the caller's own business, and its answer says nothing
// secret, either.
func TestFaultRecord(t *testing.T) {
	k := start(t, setup{timeout: `response_header = "40ms"`, upstream: silent()})
	c := k.dial().send(post("/account/"+secret+"?token="+secret, secret, "Authorization: Bearer "+secret, "Cookie: "+secret, "Host-Hint: "+secret))
	a := c.answer().problem(k, fault.ResponseHeaderTimeout)
	r := k.faulted(fault.ResponseHeaderTimeout, 504)
	for key, want := range map[string]any{
		"level": "warn", "listener": "http", "route": "default", "upstream": "default", "status": 504.0, "blame": "upstream",
		"fault": "response_header_timeout", "method": "POST", "host": "localhost", "generation": 1.0,
	} {
		if r[key] != want {
			t.Errorf("%s: %v, want %v", key, r[key], want)
		}
	}
	id, _ := r["request_id"].(string)
	if !regexp.MustCompile(`^[0-9a-f]{12}-[0-9a-f]{12}$`).MatchString(id) || !strings.Contains(a.text, id) {
		t.Errorf("request id %q is not that of the answer: %s", id, a.text)
	}
	for what, text := range map[string]string{"log": k.lines.String(), "answer": a.text} {
		if strings.Contains(text, secret) || strings.Contains(text, "account") || what == "answer" && strings.Contains(text, "127.0.0.1") {
			t.Errorf("the %s tells too much: %s", what, text)
		}
	}
}

func TestAccessLog(t *testing.T) {
	t.Run("all, with paths", func(t *testing.T) {
		k := start(t, setup{config: "[log]\naccess = \"all\"\npath = true\n"})
		k.dial().send(post("/upload?token="+secret, "hello", "Cookie: "+secret)).answer().ok(k)
		var list []record
		k.until("a record", func() bool { list = k.records(); return len(list) == 1 })
		r := list[0]
		if r["path"] != "/upload" || r["status"] != 200.0 || r["fault"] != nil || r["bytes_in"] != 5.0 || r["bytes_out"] == nil || r["request_id"] == nil {
			t.Errorf("record %v", r)
		}
		if strings.Contains(k.lines.String(), secret) {
			t.Errorf("the log tells too much: %s", k.lines)
		}
	})
	t.Run("errors", func(t *testing.T) {
		k := start(t, setup{})
		c := k.dial()
		c.send(get("/status/404")).answer().is(k, 404)
		c.send(get("/status/503")).answer().is(k, 503) // the upstream's own
		var list []record
		k.until("a record", func() bool { list = k.records(); return len(list) > 0 })
		if len(list) != 1 || list[0]["status"] != 503.0 || list[0]["fault"] != nil {
			t.Errorf("records %v", list)
		}
	})
	t.Run("off", func(t *testing.T) {
		k := start(t, setup{config: "[log]\naccess = \"off\"\n[[route]]\npath_prefix = \"/only\"\n"})
		k.dial().send(get("/")).answer().problem(k, fault.NoRoute)
		if list := k.records(); len(list) != 0 {
			t.Errorf("records %v", list)
		}
	})
}

// What a caller writes is not taken for more than what it is.
func TestRecordsAreEscaped(t *testing.T) {
	k := start(t, setup{config: "[log]\npath = true\n[[route]]\npath_prefix = \"/only\"\n"})
	k.dial().send(get("/%0aforged\"}"+strings.Repeat("x", 5000))).answer().problem(k, fault.NoRoute)
	r := k.faulted(fault.NoRoute, 404)
	if path, _ := r["path"].(string); len(path) > 4096 || !strings.HasPrefix(path, "/%0aforged") {
		t.Errorf("path of %d bytes: %.60q", len(path), path)
	}
}

func TestMetrics(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_concurrent_requests = 7\n[[route]]\npath_prefix = \"/\"\nmethods = [\"GET\", \"POST\"]\n"})
	c := k.dial()
	c.send(post("/upload", "hello")).answer().ok(k)
	c.send(get("/bytes?n=1000")).answer().ok(k)
	c.send(get("/status/503")).answer().is(k, 503)
	c.send(request("DELETE", "/")).answer().problem(k, fault.MethodNotAllowed)
	c.send("GET / HTTP/1.1\r\n\r\n").answer().problem(k, fault.BadRequest)
	_ = c.Close()
	const route = "/"
	labels := fmt.Sprintf(`{listener="http",route=%q,upstream="default"}`, route)
	k.until("the last is counted", func() bool { return k.metric(`mtls_proxy_active_connections{listener="http"}`) == 0 })
	for series, want := range map[string]float64{
		`mtls_proxy_requests_total` + labels:                                                         3,
		`mtls_proxy_requests_total{listener="http",route="-",upstream="-"}`:                          2,
		`mtls_proxy_requests_in_progress` + labels:                                                   0,
		fmt.Sprintf(`mtls_proxy_request_duration_seconds_count{route=%q,upstream="default"}`, route): 3,
		`mtls_proxy_responses_total{source="upstream",upstream="default"}`:                           3,
		`mtls_proxy_responses_total{source="proxy",upstream="-"}`:                                    2,
		`mtls_proxy_response_status_codes_total{code="200",upstream="default"}`:                      2,
		`mtls_proxy_response_status_codes_total{code="503",upstream="default"}`:                      1,
		`mtls_proxy_response_status_codes_total{code="405",upstream="-"}`:                            1,
		`mtls_proxy_errors_total{blame="caller",fault="bad_request"}`:                                1,
		`mtls_proxy_request_errors_total{fault="bad_request",upstream="-"}`:                          1,
		`mtls_proxy_connections_total{listener="http"}`:                                              1,
		`mtls_proxy_limit{limit="concurrent_requests"}`:                                              7,
		`mtls_proxy_upstream_connections_opened_total{upstream="default"}`:                           1,
		`mtls_proxy_upstream_connections_reused_total{upstream="default"}`:                           2,
		`mtls_proxy_upstream_sent_bytes_total{upstream="default"}`:                                   5,
		`mtls_proxy_tls_handshakes_total{resumed="no",upstream="default"}`:                           1,
		`mtls_proxy_upstream_connections{state="idle",upstream="default"}`:                           1,
		`mtls_proxy_upstream_connections{state="active",upstream="default"}`:                         0,
	} {
		if got := k.metric(series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if t.Failed() {
		t.Log(grep(k.scrape(), "mtls_proxy_"))
	}
}
