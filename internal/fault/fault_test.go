package fault

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite the table of docs/faults.md")

func TestVocabularyIsSortedAndWhole(t *testing.T) {
	tokens := Tokens()
	if !slices.IsSorted(tokens) {
		t.Errorf("Tokens() is not sorted: %q", tokens)
	}
	if n := len(slices.Compact(slices.Clone(tokens))); n != len(tokens) {
		t.Errorf("%d tokens, %d of them different", len(tokens), n)
	}
	name := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	for _, tok := range tokens {
		if !name.MatchString(string(tok)) {
			t.Errorf("%s is not snake_case", tok)
		}
		if got := find(tok).token; got != tok {
			t.Errorf("find(%s) = the row of %s", tok, got)
		}
		if s := tok.Status(); s < 400 || s > 599 || s != 499 && http.StatusText(s) == "" {
			t.Errorf("%s: Status() = %d, which is no error status", tok, s)
		}
		for what, sentence := range map[string]string{"Summary": tok.Summary(), "Fix": tok.Fix()} {
			if !strings.HasSuffix(sentence, ".") || strings.ToUpper(sentence[:1]) != sentence[:1] {
				t.Errorf("%s: %s() is no sentence: %q", tok, what, sentence)
			}
		}
		switch {
		case tok.Blame() == Caller && tok.Status() >= 500 && tok.Status() != 501 && tok.Status() != 505:
			t.Errorf("%s: the caller is to blame, yet the status is %d", tok, tok.Status())
		case tok.Blame() != Caller && tok.Status() < 500:
			t.Errorf("%s: the %s is to blame, yet the status is %d", tok, tok.Blame(), tok.Status())
		}
	}
}

// TestProxyErrorsAreRegistered keeps to the types that RFC 9209 defines.
func TestProxyErrorsAreRegistered(t *testing.T) {
	registered := strings.Fields(`dns_timeout dns_error destination_not_found destination_unavailable
		destination_ip_prohibited destination_ip_unroutable connection_refused connection_terminated
		connection_timeout connection_read_timeout connection_write_timeout connection_limit_reached
		tls_protocol_error tls_certificate_error tls_alert_received http_request_error http_request_denied
		http_response_incomplete http_response_header_section_size http_response_header_size
		http_response_body_size http_response_trailer_section_size http_response_trailer_size
		http_response_transfer_coding http_response_content_coding http_response_timeout
		http_upgrade_failed http_protocol_error proxy_internal_response proxy_internal_error
		proxy_configuration_error proxy_loop_detected`)
	for _, tok := range Tokens() {
		if !slices.Contains(registered, tok.ProxyError()) {
			t.Errorf("%s: ProxyError() = %q, which RFC 9209 does not define", tok, tok.ProxyError())
		}
	}
}

// TestTokenNamesStay guards the names that dashboards and programs rely on.
func TestTokenNamesStay(t *testing.T) {
	want := strings.Fields(`ambiguous_path bad_request browser_request_denied caller_gone client_ca_unknown
		client_certificate_expired client_certificate_not_yet_valid client_certificate_rejected
		client_certificate_required concurrency_limit configuration_error connect_not_supported
		connection_limit connection_refused connection_reset connection_timeout dns_error dns_timeout
		draining expectation_failed header_too_large host_not_allowed http_version_not_supported
		internal_error method_not_allowed network_unreachable no_route rate_limited request_body_timeout
		request_header_timeout request_timeout request_too_large response_body_timeout
		response_header_timeout response_header_too_large response_malformed response_reset
		response_truncated server_certificate_expired server_certificate_invalid
		server_certificate_not_yet_valid server_certificate_untrusted server_key_too_weak
		server_name_mismatch server_pin_mismatch tls_alert tls_handshake_timeout tls_protocol_error
		tls_version_mismatch transfer_coding_not_supported tunnel_response_malformed unsolicited_response upgrade_failed uri_too_long`)
	for _, name := range want {
		if !slices.Contains(Tokens(), Token(name)) {
			t.Errorf("the vocabulary lost %q", name)
		}
	}
}

func TestUnknownTokenIsAnInternalError(t *testing.T) {
	if got := Token("no_such_token").Status(); got != 500 {
		t.Errorf("Status() of an unknown token = %d, want 500", got)
	}
}

func TestProblemHoldsWhatTheCallerMayKnow(t *testing.T) {
	f := New(ConnectionRefused, errors.New("dial tcp 10.1.2.3:8443: secret")).WithDetail("A \"quoted\" \\ line\nand <b> &.")
	body := f.AppendProblem([]byte("x"), "req-1")[1:]
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("the body is no JSON: %v\n%s", err, body)
	}
	want := map[string]any{
		"type":       "urn:mtls-proxy:fault:connection_refused",
		"title":      ConnectionRefused.Summary(),
		"status":     float64(502),
		"detail":     "A \"quoted\" \\ line\nand <b> &.",
		"fault":      "connection_refused",
		"blame":      "upstream",
		"fix":        ConnectionRefused.Fix(),
		"request_id": "req-1",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("problem = %v\nwant      %v", got, want)
	}
	if strings.Contains(string(body), "secret") || strings.Contains(string(body), "10.1.2.3") {
		t.Errorf("the body tells the caller what is for the log:\n%s", body)
	}
	if body[len(body)-1] != '\n' {
		t.Errorf("the body does not end in a newline: %q", body)
	}
}

func TestProblemFallsBackToTheSummary(t *testing.T) {
	body := string(New(Draining, nil).AppendProblem(nil, ""))
	if !strings.Contains(body, `"detail":"`+Draining.Summary()+`"`) {
		t.Errorf("detail is not the summary: %s", body)
	}
	if strings.Contains(body, "request_id") {
		t.Errorf("an empty request id was written: %s", body)
	}
}

func TestProxyStatus(t *testing.T) {
	got := string(New(NoRoute, nil).AppendProxyStatus(nil))
	if want := `mtls-proxy; error=destination_not_found; details="no_route"`; got != want {
		t.Errorf("Proxy-Status = %s, want %s", got, want)
	}
}

func TestWithDetailLeavesTheOriginalAlone(t *testing.T) {
	f := New(RateLimited, nil)
	g := f.WithDetail("Other.")
	if f.Detail != "" || g.Detail != "Other." || g == f {
		t.Errorf("f.Detail = %q, g.Detail = %q", f.Detail, g.Detail)
	}
}

func TestFaultReadsAsAnError(t *testing.T) {
	cause := errors.New("no route to host")
	f := New(NetworkUnreachable, cause)
	if got, want := f.Error(), "network_unreachable: no route to host"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if !errors.Is(f, cause) {
		t.Error("the cause cannot be reached through the fault")
	}
	if got := New(Draining, nil).Error(); got != "draining" {
		t.Errorf("Error() without a cause = %q, want %q", got, "draining")
	}
}

func TestAnswerAllocatesNothing(t *testing.T) {
	f := New(RateLimited, nil)
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		buf = f.AppendProblem(buf[:0], "0123456789abcdef")
		buf = f.AppendProxyStatus(buf)
	}); n != 0 {
		t.Errorf("problem body and Proxy-Status allocate %v times", n)
	}
}

// FuzzProblem: whatever detail and request id hold, the body is one line of
// JSON, and what a JSON parser reads is what was put in.
func FuzzProblem(f *testing.F) {
	f.Add("plain", "id")
	f.Add("\"\\\x00\x1f\x7f\u0085\u2028\ufeff</script>", "\xff\xfe")
	f.Fuzz(func(t *testing.T, detail, id string) {
		body := New(BadRequest, nil).WithDetail(detail).AppendProblem(nil, id)
		if n := strings.IndexByte(string(body), '\n'); n != len(body)-1 {
			t.Fatalf("a line break at %d of %d in %q", n, len(body), body)
		}
		var got struct{ Detail, RequestID string }
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatalf("no JSON: %v: %q", err, body)
		}
		got.Detail, _ = m["detail"].(string)
		got.RequestID, _ = m["request_id"].(string)
		if utf8.ValidString(detail) && detail != "" && got.Detail != detail {
			t.Errorf("detail = %q, want %q", got.Detail, detail)
		}
		if utf8.ValidString(id) && got.RequestID != id {
			t.Errorf("request_id = %q, want %q", got.RequestID, id)
		}
	})
}

// TestDocsListEveryToken compares docs/faults.md with the vocabulary.
func TestDocsListEveryToken(t *testing.T) {
	const page, begin, end = "../../docs/faults.md", "<!-- begin: faults -->\n", "<!-- end: faults -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks %q and %q", page, begin, end)
	}
	var want strings.Builder
	for _, blame := range []Blame{Caller, Proxy, Upstream} {
		fmt.Fprintf(&want, "\n## Blame: %s\n\n", blame)
		want.WriteString("| fault | status | RFC 9209 | what happened | what to do |\n|---|--:|---|---|---|\n")
		for _, tok := range Tokens() {
			if tok.Blame() == blame {
				fmt.Fprintf(&want, "| `%s` | %d | `%s` | %s | %s |\n", tok, tok.Status(), tok.ProxyError(), tok.Summary(), tok.Fix())
			}
		}
	}
	want.WriteString("\n")
	if got == want.String() {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the vocabulary; run go test ./internal/fault -update and read the diff", page)
	}
	if err := os.WriteFile(page, []byte(head+begin+want.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
