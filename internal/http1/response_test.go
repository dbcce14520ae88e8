package http1

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func responseSummary(r *Response) string {
	s := fmt.Sprintf("%d %q 1.%d %s", r.Status, r.Reason, r.Minor, [...]string{"nobody", "length", "chunked", "until-close"}[r.Framing])
	if r.HasLength {
		s += fmt.Sprintf(" %d", r.ContentLength)
	}
	if r.Close {
		s += " close"
	}
	if r.ConnectionAuth {
		s += " auth"
	}
	if r.KeepAliveTimeout >= 0 {
		s += fmt.Sprintf(" keep=%ds", r.KeepAliveTimeout)
	}
	if r.Upgrade != nil {
		s += " upgrade=" + string(r.Upgrade)
	}
	return s
}

var goodResponses = []struct {
	name string
	head bool
	text string
	want string
}{
	{"length", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", `200 "OK" 1.1 length 5`},
	{"length zero", false, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", `200 "OK" 1.1 nobody 0`},
	{"chunked", false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", `200 "OK" 1.1 chunked`},
	{"neither", false, "HTTP/1.1 200 OK\r\n\r\n", `200 "OK" 1.1 until-close close`},
	{"HTTP/1.0", false, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", `200 "OK" 1.0 length 5 close`},
	{"HTTP/1.0 keep-alive", false, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", `200 "OK" 1.0 length 5`},
	{"close", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", `200 "OK" 1.1 length 5 close`},
	{"no reason", false, "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", `200 "" 1.1 length 5`},
	{"no reason and no space", false, "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", `200 "" 1.1 length 5`},
	{"reason of several words", false, "HTTP/1.1 404 Nicht \xe4a\r\nContent-Length: 5\r\n\r\n", "404 \"Nicht \\xe4a\" 1.1 length 5"},
	{"to HEAD", true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", `200 "OK" 1.1 nobody 5`},
	{"to HEAD, chunked", true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", `200 "OK" 1.1 nobody`},
	{"to HEAD, neither", true, "HTTP/1.1 200 OK\r\n\r\n", `200 "OK" 1.1 nobody`},
	{"304 with length", false, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", `304 "Not Modified" 1.1 nobody 5`},
	{"204", false, "HTTP/1.1 204 No Content\r\n\r\n", `204 "No Content" 1.1 nobody`},
	{"204 with length zero", false, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", `204 "No Content" 1.1 nobody`},
	{"204 that announces a body", false, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", `204 "No Content" 1.1 nobody close`},
	{"204 in chunks", false, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", `204 "No Content" 1.1 nobody close`},
	{"100", false, "HTTP/1.1 100 Continue\r\n\r\n", `100 "Continue" 1.1 nobody`},
	{"103 with length zero", false, "HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n", `103 "Early Hints" 1.1 nobody`},
	{"101", false, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", `101 "Switching" 1.1 nobody upgrade=websocket`},
	{"101 with framing fields", false, "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", `101 "S" 1.1 nobody upgrade=x`},
	{"101 without Connection", false, "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", `101 "Switching" 1.1 nobody`},
	{"426", false, "HTTP/1.1 426 U\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", `426 "U" 1.1 nobody 0 upgrade=websocket`},
	{"an offer of h2 with 200", false, "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2,h2c\r\nContent-Length: 0\r\n\r\n", `200 "OK" 1.1 nobody 0`},
	{"Keep-Alive", false, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: max=100, Timeout = 5\r\n\r\n", `200 "OK" 1.1 nobody 0 keep=5s`},
	{"Negotiate", false, "HTTP/1.1 401 U\r\nContent-Length: 0\r\nWWW-Authenticate: Basic realm=\"x\", Negotiate\r\n\r\n", `401 "U" 1.1 nobody 0 auth`},
	{"NTLM of its own", false, "HTTP/1.1 407 U\r\nContent-Length: 0\r\nProxy-Authenticate: NTLM\r\n\r\n", `407 "U" 1.1 nobody 0 auth`},
	{"status of no class", false, "HTTP/1.1 999 No\r\nContent-Length: 1\r\n\r\n", `999 "No" 1.1 length 1`},
}

func TestResponseParse(t *testing.T) {
	for _, tt := range goodResponses {
		t.Run(tt.name, func(t *testing.T) {
			var r Response
			b := []byte(tt.text + "body")
			n, err := r.Parse(b, tt.head, nil)
			if got := responseSummary(&r); n != len(tt.text) || err != nil || got != tt.want {
				t.Fatalf("Parse(%q) = %d, %v\n got %s\nwant %s", tt.text, n, err, got, tt.want)
			}
			r.Reset()
			n, err = inPieces(func(b []byte) (int, error) { return r.Parse(b, tt.head, nil) }, b, true, upTo(len(tt.text))...)
			if got := responseSummary(&r); n != len(tt.text) || err != nil || got != tt.want {
				t.Fatalf("byte for byte: %d, %v\n got %s\nwant %s", n, err, got, tt.want)
			}
		})
	}
}

func TestResponseParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Kind
	}{
		{"no HTTP", "SSH-2.0-x", Malformed},
		{"empty line before", "\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed},
		{"HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n", Malformed},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", Malformed},
		{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", Malformed},
		{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", Malformed},
		{"status below 100", "HTTP/1.1 099 OK\r\n\r\n", Malformed},
		{"status that is no number", "HTTP/1.1 2x0 OK\r\n\r\n", Malformed},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", Malformed},
		{"control in the reason", "HTTP/1.1 200 O\x01K\r\n\r\n", Malformed},
		{"bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", Malformed},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Malformed},
		{"bare LF behind a field", "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", Malformed},
		{"obs-fold", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", Malformed},
		{"space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", Malformed},
		{"different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Malformed},
		{"equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Malformed},
		{"list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", Malformed},
		{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Malformed},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed},
		{"103 with a body", "HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\n", Malformed},
		{"NUL in a value", "HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n", Malformed},
		{"head beyond the limit", "HTTP/1.1 200 OK\r\nX: 1234567890123456789012345678901234567890\r\n\r\n", HeadTooLarge},
		{"unfinished status line beyond the limit", "HTTP/1.1 200 1234567890123456789012345678901234567890", HeadTooLarge},
		{"too many fields", "HTTP/1.1 200 OK\r\nA: 1\r\nB: 1\r\nC: 1\r\n\r\n", HeadTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits := &Limits{MaxHead: 100, MaxFields: 2}
			if tt.want == HeadTooLarge {
				limits.MaxHead = 50
			} else {
				limits.MaxFields = 9
			}
			var r Response
			_, err := r.Parse([]byte(tt.text), false, limits)
			var e *Error
			if !errors.As(err, &e) || e.Kind != tt.want {
				t.Errorf("Parse(%q): %v; want kind %d", tt.text, err, tt.want)
			}
		})
	}
}

func parseResponse(t testing.TB, head bool, text string) *Response {
	t.Helper()
	r := new(Response)
	if n, err := r.Parse([]byte(text), head, nil); err != nil || n != len(text) {
		t.Fatalf("Parse(%q) = %d, %v", text, n, err)
	}
	return r
}

func TestResponseAppend(t *testing.T) {
	now := ResponseRewrite{CallerMinor: 1}
	old := ResponseRewrite{CallerMinor: 0}
	for _, tt := range []struct {
		name     string
		head     bool
		rewrite  ResponseRewrite
		in, want string
	}{
		{
			"as it came", false, now,
			lines("HTTP/1.0 200 Fine", "Connection: keep-alive", "content-length:5", "Server: x"),
			lines("HTTP/1.1 200 Fine", "Server: x", "Content-Length: 5"),
		},
		{
			"hop-by-hop fields", false, now,
			lines("HTTP/1.1 200 OK", "Connection: close, X-Hop, Set-Cookie", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Connection: x", "Proxy-Authenticate: Basic",
				"Trailer: X", "TE: x", "Upgrade: h2,h2c", "Set-Cookie: a=b", "X-Kept: 1", "Content-Length: 0"),
			lines("HTTP/1.1 200 OK", "X-Kept: 1", "Content-Length: 0"),
		},
		{
			"chunks to HTTP/1.1", false, now,
			lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum"),
			lines("HTTP/1.1 200 OK", "Trailer: X-Sum", "Transfer-Encoding: chunked"),
		},
		{
			"chunks to HTTP/1.0", false, ResponseRewrite{KeepAlive10: true},
			lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum"),
			lines("HTTP/1.1 200 OK", "Connection: close"),
		},
		{
			"to the end of the connection becomes chunks", false, now,
			lines("HTTP/1.1 200 OK", "Connection: close", "Trailer: X-Sum"),
			lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"),
		},
		{
			"length to HTTP/1.0 that asked to keep", false, ResponseRewrite{KeepAlive10: true},
			lines("HTTP/1.1 200 OK", "Content-Length: 1"),
			lines("HTTP/1.1 200 OK", "Connection: keep-alive", "Content-Length: 1"),
		},
		{
			"length to HTTP/1.0 that did not", false, old,
			lines("HTTP/1.1 200 OK", "Content-Length: 1"),
			lines("HTTP/1.1 200 OK", "Content-Length: 1"),
		},
		{
			"we close", false, ResponseRewrite{CallerMinor: 1, Close: true},
			lines("HTTP/1.1 200 OK", "Content-Length: 1"),
			lines("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 1"),
		},
		{
			"length of what HEAD would have got", true, now,
			lines("HTTP/1.1 200 OK", "Content-Length: 100"),
			lines("HTTP/1.1 200 OK", "Content-Length: 100"),
		},
		{
			"204 has no length", false, now,
			lines("HTTP/1.1 204 No Content", "Content-Length: 0"),
			lines("HTTP/1.1 204 No Content"),
		},
		{
			"101", false, ResponseRewrite{CallerMinor: 1, Close: true, Date: []byte("now"), Defaults: []Default{{"X-D", "1"}}},
			lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x"),
			lines("HTTP/1.1 101 Switching Protocols", "Sec-WebSocket-Accept: x", "Upgrade: websocket", "Connection: Upgrade"),
		},
		{
			"103 gets nothing from us", false, ResponseRewrite{CallerMinor: 1, Date: []byte("now"), Defaults: []Default{{"X-D", "1"}}, Edits: mustEdits(t, map[string]string{"X-Set": "1"}, nil, "X-Gone")},
			lines("HTTP/1.1 103 Early Hints", "Link: </a>", "X-Set: 0", "X-Gone: 1"),
			lines("HTTP/1.1 103 Early Hints", "Link: </a>"),
		},
		{
			"defaults, Date and edits", false, ResponseRewrite{
				CallerMinor: 1, Date: []byte("now"), Via: "1.1 us",
				Defaults: []Default{{"X-Frame-Options", "DENY"}, {"X-Content-Type-Options", "nosniff"}, {"Referrer-Policy", "no-referrer"}, {"X-Removed", "1"}},
				Edits:    mustEdits(t, map[string]string{"Referrer-Policy": "origin"}, map[string]string{"X-Tag": "1"}, "Server", "X-Removed"),
			},
			lines("HTTP/1.1 200 OK", "x-frame-options: SAMEORIGIN", "Server: x", "Via: 1.1 z", "Content-Length: 0"),
			lines("HTTP/1.1 200 OK", "x-frame-options: SAMEORIGIN", "Via: 1.1 z, 1.1 us", "Date: now", "X-Content-Type-Options: nosniff", "Referrer-Policy: origin", "X-Tag: 1", "Content-Length: 0"),
		},
		{
			"the upstream's Date stays", false, ResponseRewrite{CallerMinor: 1, Date: []byte("now")},
			lines("HTTP/1.1 200 OK", "Date: then", "Content-Length: 0"),
			lines("HTTP/1.1 200 OK", "Date: then", "Content-Length: 0"),
		},
		{
			"a default that was nominated away is put in", false, ResponseRewrite{CallerMinor: 1, Defaults: []Default{{"X-Frame-Options", "DENY"}}},
			lines("HTTP/1.1 200 OK", "X-Frame-Options: ALLOW", "Connection: x-frame-options", "Content-Length: 0"),
			lines("HTTP/1.1 200 OK", "X-Frame-Options: DENY", "Content-Length: 0"),
		},
		{
			"426 and we close", false, ResponseRewrite{CallerMinor: 1, Close: true},
			lines("HTTP/1.1 426 Upgrade Required", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 0"),
			lines("HTTP/1.1 426 Upgrade Required", "Upgrade: websocket", "Connection: close, Upgrade", "Content-Length: 0"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(parseResponse(t, tt.head, tt.in).Append(nil, &tt.rewrite))
			if got != tt.want {
				t.Errorf("of\n%s\n got\n%s\nwant\n%s", tt.in, got, tt.want)
			}
		})
	}
}

func TestUpgradeOffered(t *testing.T) {
	for _, tt := range []struct {
		offer, chosen string
		want          bool
	}{
		{"websocket", "WebSocket", true}, {"a/1, websocket", "websocket", true}, {"websocket", "h2c", false},
		{"websocket", "", false}, {"", "websocket", false}, {"websocket", "websocket, b", false}, {"a", ",", false},
	} {
		if got := UpgradeOffered([]byte(tt.offer), []byte(tt.chosen)); got != tt.want {
			t.Errorf("UpgradeOffered(%q, %q) = %v", tt.offer, tt.chosen, got)
		}
	}
}

func TestLocationRewrite(t *testing.T) {
	plainly := &LocationRewrite{Origins: []string{"https://api.example", "https://api.example:443"}, Domains: []string{"api.example"}}
	prefixed := &LocationRewrite{Origins: plainly.Origins, Domains: plainly.Domains, StripPrefix: "/bank", AddPrefix: "/v2"}
	added := &LocationRewrite{Origins: plainly.Origins, Domains: plainly.Domains, AddPrefix: "/v2/"}
	stripped := &LocationRewrite{Origins: plainly.Origins, Domains: plainly.Domains, StripPrefix: "/bank"}
	for _, tt := range []struct {
		name     string
		rewrite  *LocationRewrite
		in, want string
	}{
		{"own origin", plainly, "Location: HTTPS://Api.Example/a?b#c", "Location: http://me:8080/a?b#c"},
		{"own origin with port", plainly, "Location: https://api.example:443/a", "Location: http://me:8080/a"},
		{"own origin alone", plainly, "Location: https://api.example", "Location: http://me:8080/"},
		{"own origin and query", plainly, "Content-Location: https://api.example?q", "Content-Location: http://me:8080/?q"},
		{"own authority without scheme", plainly, "Location: //api.example/a", "Location: http://me:8080/a"},
		{"another port", plainly, "Location: https://api.example:444/a", "Location: https://api.example:444/a"},
		{"another scheme", plainly, "Location: http://api.example/a", "Location: http://api.example/a"},
		{"another host that begins alike", plainly, "Location: https://api.example.evil/a", "Location: https://api.example.evil/a"},
		{"userinfo", plainly, "Location: https://api.example@evil/a", "Location: https://api.example@evil/a"},
		{"another host without scheme", plainly, "Location: //evil/a", "Location: //evil/a"},
		{"path only", plainly, "Location: /a", "Location: /a"},
		{"relative", prefixed, "Location: v2/a", "Location: v2/a"},
		{"query only", prefixed, "Location: ?a", "Location: ?a"},
		{"empty", prefixed, "Location:", "Location: "},
		{"prefixes undone", prefixed, "Location: /v2/a?/v2", "Location: /bank/a?/v2"},
		{"prefixes undone, nothing behind", prefixed, "Location: /v2", "Location: /bank"},
		{"prefixes undone in own origin", prefixed, "Location: https://api.example/v2/a", "Location: http://me:8080/bank/a"},
		{"outside of the prefix", prefixed, "Location: /v21/a", "Location: /v21/a"},
		{"added prefix undone", added, "Location: /v2?a", "Location: /?a"},
		{"added prefix hides an authority", added, "Location: /v2//evil/a", "Location: /v2//evil/a"},
		{"added prefix hides an authority behind a backslash", added, "Location: /v2/\\evil/a", "Location: /v2/\\evil/a"},
		{"stripped prefix undone", stripped, "Location: /", "Location: /bank/"},

		{"Secure and own Domain go", plainly, "Set-Cookie: a=b; Path=/; Secure; HttpOnly; Domain=.API.example; SameSite=Lax", "Set-Cookie: a=b; Path=/; HttpOnly; SameSite=Lax"},
		{"parent domain", plainly, "Set-Cookie: a=b;domain=example", "Set-Cookie: a=b"},
		{"foreign domain", plainly, "Set-Cookie: a=b; Domain=pi.example", "Set-Cookie: a=b; Domain=pi.example"},
		{"what needs Secure", plainly, "Set-Cookie: a=b; secure; SameSite=None; Partitioned", "Set-Cookie: a=b"},
		{"__Host- is left alone", plainly, "Set-Cookie: __Host-a=b; Secure; Path=/", "Set-Cookie: __Host-a=b; Secure; Path=/"},
		{"__Secure- is left alone", plainly, "Set-Cookie: __secure-a=b; Secure", "Set-Cookie: __secure-a=b; Secure"},
		{"a value that looks like an attribute", plainly, "Set-Cookie: secure", "Set-Cookie: secure"},
		{"Path", prefixed, "Set-Cookie: a=b; path=/v2/x; Max-Age=5", "Set-Cookie: a=b; Path=/bank/x; Max-Age=5"},
		{"Path of everything", prefixed, "Set-Cookie: a=b; Path=/", "Set-Cookie: a=b; Path=/"},
		{"Path elsewhere", prefixed, "Set-Cookie: a=b; Path=/v1", "Set-Cookie: a=b; Path=/v1"},

		{"other fields", prefixed, "X-Location: https://api.example/v2", "X-Location: https://api.example/v2"},
		{"switched off", nil, "Location: https://api.example/v2", "Location: https://api.example/v2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := parseResponse(t, false, lines("HTTP/1.1 302 Found", tt.in, "Content-Length: 0"))
			got := string(r.Append(nil, &ResponseRewrite{CallerMinor: 1, Location: tt.rewrite, Host: []byte("me:8080")}))
			if want := lines("HTTP/1.1 302 Found", tt.want, "Content-Length: 0"); got != want {
				t.Errorf("of %s\n got %q\nwant %q", tt.in, got, want)
			}
		})
	}
}

func TestAppendAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer Answer
		want   string
	}{
		{"with a body", Answer{Status: 503, ContentType: "text/plain", Fields: []Default{{"Retry-After", "1"}}, Lines: AppendField(nil, "X-A", []byte("b")), Body: []byte("no"), Close: true, Date: []byte("now")},
			lines("HTTP/1.1 503 Service Unavailable", "Date: now", "Retry-After: 1", "X-A: b", "Connection: close", "Content-Type: text/plain", "Content-Length: 2") + "no"},
		{"to HEAD", Answer{Status: 404, Body: []byte("no"), Head: true, KeepAlive10: true},
			lines("HTTP/1.1 404 Not Found", "Connection: keep-alive", "Content-Length: 2")},
		{"204", Answer{Status: 204, Body: []byte("no")}, lines("HTTP/1.1 204 No Content")},
		{"100", Answer{Status: 100, Close: true}, lines("HTTP/1.1 100 Continue")},
		{"status without a phrase", Answer{Status: 418}, lines("HTTP/1.1 418 ", "Content-Length: 0")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendAnswer(nil, &tt.answer)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestAppendDate(t *testing.T) {
	at := time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))
	if got, want := string(AppendDate(nil, at)), "Fri, 02 Jan 2026 03:04:05 GMT"; got != want {
		t.Errorf("AppendDate = %s, want %s", got, want)
	}
}

// What a response that was passed on lets go of is the buffer alone: how its body is framed must still be known.
func TestReleaseKeepsTheFraming(t *testing.T) {
	head := lines("HTTP/1.1 200 OK", "Content-Length: 5", "Connection: close, x-a", "X-A: 1", "Keep-Alive: timeout=7")
	var r Response
	if _, err := r.Parse([]byte(head), false, nil); err != nil {
		t.Fatal(err)
	}
	r.Release()
	if len(r.Fields) != 0 || r.Reason != nil {
		t.Errorf("Fields = %v, Reason = %q after Release", r.Fields, r.Reason)
	}
	if r.Status != 200 || r.Framing != Length || r.ContentLength != 5 || !r.Close || r.KeepAliveTimeout != 7 || !r.nominates([]byte("X-A")) {
		t.Errorf("Release changed what is known of the message: %+v", r)
	}
}
