package http1

import (
	"strings"
	"testing"
)

func parseRequest(t testing.TB, head string) *Request {
	t.Helper()
	r := new(Request)
	if n, err := r.Parse([]byte(head), nil); err != nil || n != len(head) {
		t.Fatalf("Parse(%q) = %d, %v", head, n, err)
	}
	return r
}

func mustEdits(t testing.TB, set, add map[string]string, remove ...string) *Edits {
	t.Helper()
	e, err := CompileEdits(set, add, remove)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// lines writes a head with one line of Go per line of HTTP.
func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n\r\n" }

func TestRequestAppend(t *testing.T) {
	add := RequestRewrite{Forwarded: ForwardedAdd, ForwardedElement: []byte("for=192.0.2.7"), CallerAddress: "192.0.2.7"}
	pass := RequestRewrite{Forwarded: ForwardedPass}
	for _, tt := range []struct {
		name     string
		rewrite  RequestRewrite
		in, want string
	}{
		{
			"as it came, Host first", RequestRewrite{},
			lines("GET /a?b HTTP/1.1", "Accept:*/*", "Host:  h:81", "X-A: 1 "),
			lines("GET /a?b HTTP/1.1", "Host: h:81", "Accept: */*", "X-A: 1"),
		},
		{
			"another Host, HTTP/1.1 for 1.0", RequestRewrite{Host: "api.example", Via: "1.1 us"},
			lines("GET / HTTP/1.0", "X-A: 1"),
			lines("GET / HTTP/1.1", "Host: api.example", "X-A: 1", "Via: 1.0 us"),
		},
		{
			"absolute-form becomes origin-form", RequestRewrite{},
			lines("GET http://a:81?q HTTP/1.1", "Host: b"),
			lines("GET /?q HTTP/1.1", "Host: a:81"),
		},
		{
			"OPTIONS * keeps its asterisk", RequestRewrite{AddPrefix: "/v2"},
			lines("OPTIONS * HTTP/1.1", "Host: b", "Max-Forwards: 2"),
			lines("OPTIONS * HTTP/1.1", "Host: b", "Max-Forwards: 1"),
		},
		{
			"prefixes", RequestRewrite{StripPrefix: "/bank", AddPrefix: "/v2/"},
			lines("GET /bank//x/../%2f?y=/bank HTTP/1.1", "Host: b"),
			lines("GET /v2//x/../%2f?y=/bank HTTP/1.1", "Host: b"),
		},
		{
			"prefix is the whole path", RequestRewrite{StripPrefix: "/bank/"},
			lines("GET /bank?x HTTP/1.1", "Host: b"),
			lines("GET /?x HTTP/1.1", "Host: b"),
		},
		{
			"prefix ends inside a segment", RequestRewrite{StripPrefix: "/bank"},
			lines("GET /banking HTTP/1.1", "Host: b"),
			lines("GET /banking HTTP/1.1", "Host: b"),
		},
		{
			"hop-by-hop fields", RequestRewrite{},
			lines("GET / HTTP/1.1", "Host: b", "Connection: keep-alive, X-Hop, Cookie, Content-Type", "Keep-Alive: timeout=5",
				"Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eA==", "x-hop: 1", "X-Hop2: 2", "Cookie: a=b", "Content-Type: x/y",
				"TE: gzip", "Trailer: X", "Upgrade: websocket", "HTTP2-Settings: AAA"),
			lines("GET / HTTP/1.1", "Host: b", "X-Hop2: 2"),
		},
		{
			"Host, framing and Expect can not be nominated away", RequestRewrite{},
			lines("POST / HTTP/1.1", "Host: b", "Connection: Host, Content-Length, Transfer-Encoding, Expect", "Content-Length: 07", "Expect: 100-continue"),
			lines("POST / HTTP/1.1", "Host: b", "Expect: 100-continue", "Content-Length: 7"),
		},
		{
			"Content-Length: 0 is kept", RequestRewrite{},
			lines("POST / HTTP/1.1", "Host: b", "Content-Length: 0"),
			lines("POST / HTTP/1.1", "Host: b", "Content-Length: 0"),
		},
		{
			"chunked with trailers", RequestRewrite{},
			lines("POST / HTTP/1.1", "Host: b", "Transfer-Encoding: CHUNKED", "Trailer: X-Sum", "TE: Trailers, deflate", "Connection: TE"),
			lines("POST / HTTP/1.1", "Host: b", "Trailer: X-Sum", "TE: trailers", "Connection: TE", "Transfer-Encoding: chunked"),
		},
		{
			"WebSocket", RequestRewrite{},
			lines("GET /ws HTTP/1.1", "Host: b", "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "TE: trailers"),
			lines("GET /ws HTTP/1.1", "Host: b", "Sec-WebSocket-Key: x", "TE: trailers", "Connection: Upgrade, TE", "Upgrade: websocket"),
		},
		{
			"forwarding fields are stripped", RequestRewrite{},
			lines("GET / HTTP/1.1", "Host: b", "Forwarded: for=x", "X-Forwarded-For: x", "x-forwarded-port: 1", "X-Real-IP: x", "True-Client-IP: x",
				"X-Original-URL: /admin", "X-Rewrite-URL: /admin"),
			lines("GET / HTTP/1.1", "Host: b"),
		},
		{
			"forwarding fields pass", pass,
			lines("GET / HTTP/1.1", "Host: b", "Forwarded: for=x", "X-Forwarded-For: x", "X-Real-IP: x"),
			lines("GET / HTTP/1.1", "Host: b", "Forwarded: for=x", "X-Forwarded-For: x", "X-Real-IP: x"),
		},
		{
			"what tells of client certificates never passes, nor do other spellings", pass,
			lines("GET / HTTP/1.1", "Host: b", "Client-Cert: :x:", "Client-Cert-Chain: :x:", "X-Forwarded-Client-Cert: x", "X-Forwarded-Tls-Client-Cert: x",
				"X-SSL-Client-S-DN: x", "SSL-Client-Verify: x", "X-Client-Cert: x", "X-Client-DN: x", "X-ARR-ClientCert: x", "X-Amzn-Mtls-Clientcert-Leaf: x",
				"X_Forwarded_For: x", "X-Forwarded_For: x", "Client_Cert: x", "X.Forwarded.Host: x", "Content_Length: 5", "Transfer_Encoding: chunked", "X_SSL_Client_S_DN: x",
				"X-A_b: kept"),
			lines("GET / HTTP/1.1", "Host: b", "X-A_b: kept"),
		},
		{
			"forwarding fields are added", add,
			lines("GET / HTTP/1.1", "Host: b:81", "X-A: 1"),
			lines("GET / HTTP/1.1", "Host: b:81", "X-A: 1", `Forwarded: for=192.0.2.7;host="b:81";proto=http`, "X-Forwarded-For: 192.0.2.7",
				"X-Forwarded-Host: b:81", "X-Forwarded-Proto: http"),
		},
		{
			"forwarding fields are added to the caller's", add,
			lines("GET / HTTP/1.1", "Host: b", "Forwarded: for=a", "X-Forwarded-For: a", "X-Forwarded-Proto: https", "X-Forwarded-For: c, d", "X-Forwarded-Host: e"),
			lines("GET / HTTP/1.1", "Host: b", "X-Forwarded-Proto: https", "X-Forwarded-Host: e",
				`Forwarded: for=a, for=192.0.2.7;host="b";proto=http`, "X-Forwarded-For: a, c, d, 192.0.2.7"),
		},
		{
			"a Forwarded that would swallow ours is left out", add,
			lines("GET / HTTP/1.1", "Host: b", `Forwarded: for="a`, `Forwarded: for="b\"c"`, "X-Forwarded-Host: b", "X-Forwarded-Proto: http"),
			lines("GET / HTTP/1.1", "Host: b", "X-Forwarded-Host: b", "X-Forwarded-Proto: http",
				`Forwarded: for="b\"c", for=192.0.2.7;host="b";proto=http`, "X-Forwarded-For: 192.0.2.7"),
		},
		{
			"nominated forwarding fields go, ours stay", add,
			lines("GET / HTTP/1.1", "Host: b", "Connection: X-Forwarded-For, X-Forwarded-Host", "X-Forwarded-For: a", "X-Forwarded-Host: a", "X-Forwarded-Proto: http"),
			lines("GET / HTTP/1.1", "Host: b", "X-Forwarded-Proto: http", `Forwarded: for=192.0.2.7;host="b";proto=http`, "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: b"),
		},
		{
			"a caller on a Unix socket", RequestRewrite{Forwarded: ForwardedAdd, ForwardedElement: AppendForwardedFor(nil, "")},
			lines("GET / HTTP/1.0"),
			lines("GET / HTTP/1.1", "Host: ", "Forwarded: for=_unix;proto=http", "X-Forwarded-Proto: http"),
		},
		{
			"a caller on a Unix socket that forwards for others", RequestRewrite{Forwarded: ForwardedAdd, ForwardedElement: AppendForwardedFor(nil, "")},
			lines("GET / HTTP/1.1", "Host: b", "X-Forwarded-For: a", "X-Forwarded-For: c"),
			lines("GET / HTTP/1.1", "Host: b", "X-Forwarded-For: a", "X-Forwarded-For: c",
				`Forwarded: for=_unix;host="b";proto=http`, "X-Forwarded-Host: b", "X-Forwarded-Proto: http"),
		},
		{
			"Via is added to", RequestRewrite{Via: "1.1 us"},
			lines("GET / HTTP/1.1", "Host: b", "Via: 1.0 a (x), 1.1 b", "Via: 1.1 c", "Via: 1.1 d (open"),
			lines("GET / HTTP/1.1", "Host: b", "Via: 1.0 a (x), 1.1 b, 1.1 c, 1.1 us"),
		},
		{
			"Via is left alone", RequestRewrite{},
			lines("GET / HTTP/1.1", "Host: b", "Via: 1.0 a"),
			lines("GET / HTTP/1.1", "Host: b", "Via: 1.0 a"),
		},
		{
			"edits", RequestRewrite{
				Via: "1.1 us", Forwarded: ForwardedAdd, ForwardedElement: []byte("for=x"),
				Edits: mustEdits(t, map[string]string{"X-User": "billing", "X-Forwarded-For": "10.0.0.1", "X-Empty": ""}, map[string]string{"X-Tag": "ours", "X-Forwarded-Host": "z"}, "cookie", "Via", "Forwarded", "X-Forwarded-Proto"),
			},
			lines("GET / HTTP/1.1", "Host: b", "x-user: root", "X_USER: root", "x-tag: theirs", "x_tag: theirs", "Cookie: a", "Via: 1.1 z", "Forwarded: for=y", "X-Forwarded-For: y"),
			lines("GET / HTTP/1.1", "Host: b", "x-tag: theirs", "X-Empty: ", "X-Forwarded-For: 10.0.0.1", "X-User: billing", "X-Forwarded-Host: z", "X-Tag: ours"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(parseRequest(t, tt.in).Append(nil, &tt.rewrite))
			if got != tt.want {
				t.Errorf("of\n%s\n got\n%s\nwant\n%s", tt.in, got, tt.want)
			}
		})
	}
}

func TestRequestAppendWritesBehindWhatIsThere(t *testing.T) {
	r := parseRequest(t, lines("GET / HTTP/1.1", "Host: b"))
	if got, want := string(r.Append([]byte("before"), &RequestRewrite{})), "beforeGET / HTTP/1.1\r\nHost: b\r\n\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAppendForwardedFor(t *testing.T) {
	for address, want := range map[string]string{"": "for=_unix", "127.0.0.1": "for=127.0.0.1", "::1": `for="[::1]"`} {
		if got := string(AppendForwardedFor(nil, address)); got != want {
			t.Errorf("of %q: %s, want %s", address, got, want)
		}
	}
}

func TestCompileEditsRefuses(t *testing.T) {
	one := func(name, value string) map[string]string { return map[string]string{name: value} }
	for _, tt := range []struct {
		name     string
		set, add map[string]string
		remove   []string
		want     string
	}{
		{"Host", one("host", "x"), nil, nil, `set "host": the proxy itself`},
		{"framing", nil, one("Content-Length", "1"), nil, `add "Content-Length": the proxy itself`},
		{"hop-by-hop", nil, nil, []string{"Connection"}, `remove "Connection": the proxy itself`},
		{"another spelling of framing", one("Transfer_Encoding", "x"), nil, nil, `set "Transfer_Encoding": the proxy itself`},
		{"another spelling of ours", one("X_Forwarded_For", "x"), nil, nil, `set "X_Forwarded_For": another spelling`},
		{"no name", one("a b", "x"), nil, nil, `set "a b": not a field name`},
		{"empty name", nil, nil, []string{""}, `remove "": not a field name`},
		{"line break in a value", one("X-A", "a\r\nHost: b"), nil, nil, `set "X-A": the value`},
		{"white space at the end of a value", nil, one("X-A", "a "), nil, `add "X-A": the value`},
		{"in two groups", one("X-A", "a"), nil, []string{"x-a"}, `remove "x-a": the same field as "X-A"`},
		{"twice in one", map[string]string{"X-A": "a", "x-a": "b"}, nil, nil, `set "x-a": the same field as "X-A"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := CompileEdits(tt.set, tt.add, tt.remove)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("CompileEdits = %v, %v; want an error that begins %s", e, err, tt.want)
			}
		})
	}
}

func TestCompileEditsIsDeterministic(t *testing.T) {
	set := map[string]string{}
	for _, c := range "abcdefghijklm" {
		set["X-"+string(c)] = "1"
	}
	first := string(mustEdits(t, set, nil).lines)
	for range 20 {
		if again := string(mustEdits(t, set, nil).lines); again != first {
			t.Fatalf("order changed:\n%s\n%s", first, again)
		}
	}
}

func TestIdentify(t *testing.T) {
	for name, want := range map[string]ID{
		"Host": Host, "hOST": Host, "te": TE, "HTTP2-Settings": HTTP2Settings, "X-Forwarded-For": XForwardedFor,
		"X-Forwarded-Whatever": XForwarded, "X-Forwarded-": XForwarded, "X-Forwarded-Client-Cert": ClientCert, "Client-Cert-Chain": ClientCert,
		"X-Forwarded-Ssl-Client-Verify": ClientCert, "SSL-Client-I-DN": ClientCert, "x-real-ip": XForwarded,
		"X_Forwarded_For": Underscored, "Host_": Other, "_Host": Other, "Keep_Alive": Underscored, "Keep.Alive": Underscored, "X-Forwarded-A_B": Underscored,
		"Content_Type": Other, "Set_Cookie": Other, "User-Agent": Other, "X": Other, "": Other, "Cookie": Other, "SSL-Cipher": Other,
	} {
		if got := Identify([]byte(name)); got != want {
			t.Errorf("Identify(%q) = %d, want %d", name, got, want)
		}
	}
	for _, k := range known {
		if k.name == "" {
			continue
		}
		for _, name := range []string{k.name, k.usual, strings.ToUpper(k.name)} {
			if got := Identify([]byte(name)); got != k.id {
				t.Errorf("Identify(%q) = %d, want %d", name, got, k.id)
			}
		}
	}
	if idCount > 64 {
		t.Errorf("%d IDs do not fit a word", idCount)
	}
}

func TestKeepTrailers(t *testing.T) {
	r := parseRequest(t, lines("POST / HTTP/1.1", "Host: b", "Transfer-Encoding: chunked", "Connection: X-Hop"))
	e := mustEdits(t, map[string]string{"X-User": "billing"}, nil, "X-Gone")
	var trailers []Field
	for _, name := range []string{"X-Hop", "X-Sum", "x-user", "X_User", "X-Gone", "X-Last"} {
		trailers = append(trailers, Field{Name: []byte(name), Value: []byte("1")})
	}
	var got []string
	for _, f := range r.KeepTrailers(trailers, e) {
		got = append(got, string(f.Name))
	}
	if want := "X-Sum X-Last"; strings.Join(got, " ") != want {
		t.Errorf("kept %s, want %s", got, want)
	}
}
