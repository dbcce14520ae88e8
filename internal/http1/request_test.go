package http1

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// summary is what a request was read as, in one line.
func summary(r *Request) string {
	s := fmt.Sprintf("%s %s %s%s host=%s 1.%d", r.Method, [...]string{"origin", "absolute", "asterisk"}[r.Form], r.Path, r.Query, r.Host, r.Minor)
	switch {
	case r.Framing == Chunked:
		s += " chunked"
	case r.HasLength:
		s += fmt.Sprintf(" length=%d", r.ContentLength)
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"close", r.Close}, {"keep-alive", r.KeepAliveToken}, {"expect", r.Expect100},
		{"idempotency", r.Idempotency}, {"auth", r.ConnectionAuth},
	} {
		if flag.set {
			s += " " + flag.name
		}
	}
	if r.Upgrade != nil {
		s += " upgrade=" + string(r.Upgrade)
	}
	if r.MaxForwards >= 0 {
		s += fmt.Sprintf(" max-forwards=%d", r.MaxForwards)
	}
	return s
}

var goodRequests = []struct{ name, head, want string }{
	{"plain GET", "GET /a/b?c=d HTTP/1.1\r\nHost: h\r\n\r\n", "GET origin /a/b?c=d host=h 1.1"},
	{"empty line before", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET origin / host=h 1.1"},
	{"no space after colon, tabs around", "GET / HTTP/1.1\r\nHost:\th \t\r\n\r\n", "GET origin / host=h 1.1"},
	{"HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "GET origin / host= 1.0 close"},
	{"HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET origin / host= 1.0 keep-alive"},
	{"HTTP/1.0 close beats keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "GET origin / host= 1.0 close"},
	{"HTTP/1.1 close", "GET / HTTP/1.1\r\nHost: h\r\nConnection: CLOSE\r\n\r\n", "GET origin / host=h 1.1 close"},
	{"absolute-form wins over Host", "GET http://a:81/p?q HTTP/1.1\r\nHost: b\r\n\r\n", "GET absolute /p?q host=a:81 1.1"},
	{"absolute-form without path", "GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET absolute / host=a 1.1"},
	{"absolute-form, query only", "GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET absolute /?q host=a 1.1"},
	{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS asterisk * host=h 1.1"},
	{"OPTIONS of an authority", "OPTIONS http://a HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS asterisk * host=a 1.1"},
	{"OPTIONS of an authority with query", "OPTIONS http://a? HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS absolute /? host=a 1.1"},
	{"Max-Forwards of TRACE", "TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 3\r\n\r\n", "TRACE origin / host=h 1.1 max-forwards=3"},
	{"Max-Forwards of GET means nothing", "GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: x\r\n\r\n", "GET origin / host=h 1.1"},
	{"IPv6 with port", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "GET origin / host=[::1]:8080 1.1"},
	{"path passed byte for byte", "GET //a/../%2e%zz\\{|}\"<>^` HTTP/1.1\r\nHost: h\r\n\r\n", "GET origin //a/../%2e%zz\\{|}\"<>^` host=h 1.1"},
	{"Content-Length", "POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 0012\r\n\r\n", "POST origin / host=h 1.1 length=12"},
	{"Content-Length of nothing", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "POST origin / host=h 1.1 length=0"},
	{"largest Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775807\r\n\r\n", "POST origin / host=h 1.1 length=9223372036854775807"},
	{"chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n", "POST origin / host=h 1.1 chunked"},
	{"Expect", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n", "PUT origin / host=h 1.1 length=1 expect"},
	{"Expect of HTTP/1.0 is ignored", "PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", "PUT origin / host= 1.0 length=1 close"},
	{"Expect without a body is ignored", "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n", "PUT origin / host=h 1.1"},
	{"WebSocket", "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET origin /ws host=h 1.1 upgrade=websocket"},
	{"empty port", "GET / HTTP/1.1\r\nHost: h:\r\n\r\n", "GET origin / host=h: 1.1"},
	{"h2c is stripped", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n", "GET origin / host=h 1.1"},
	{"h2c is stripped from among others", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: a/1, H2C\r\nUpgrade: websocket\r\n\r\n", "GET origin / host=h 1.1 upgrade=a/1, websocket"},
	{"Upgrade without Connection", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", "GET origin / host=h 1.1"},
	{"Upgrade of POST", "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "POST origin / host=h 1.1 upgrade=websocket"},
	{"Upgrade with a body", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n", "GET origin / host=h 1.1 length=1 upgrade=websocket"},
	{"Upgrade with chunks", "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\nTransfer-Encoding: chunked\r\n\r\n", "POST origin / host=h 1.1 chunked upgrade=SPDY/3.1"},
	{"Upgrade in HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n", "GET origin / host=h 1.0 close"},
	{"Upgrade to what concerns this hop", "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c/1, TLS/1.2, HTTP/2.0\r\n\r\n", "POST origin / host=h 1.1"},
	{"NTLM", "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: ntlm TlR\r\n\r\n", "GET origin / host=h 1.1 auth"},
	{"Negotiate", "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Negotiate YII\r\n\r\n", "GET origin / host=h 1.1 auth"},
	{"Basic is no matter of the connection", "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic bnRsbQ==\r\n\r\n", "GET origin / host=h 1.1"},
	{"Idempotency-Key", "POST / HTTP/1.1\r\nHost: h\r\nIdempotency-Key: 7\r\n\r\n", "POST origin / host=h 1.1 idempotency"},
	{"an empty Idempotency-Key", "POST / HTTP/1.1\r\nHost: h\r\nIdempotency-Key:\r\n\r\n", "POST origin / host=h 1.1"},
	{"two Idempotency-Key fields", "POST / HTTP/1.1\r\nHost: h\r\nIdempotency-Key: 7\r\nidempotency-key: 7\r\n\r\n", "POST origin / host=h 1.1"},
	{"empty elements of Connection", "GET / HTTP/1.1\r\nHost: h\r\nConnection: , ,close,\r\n\r\n", "GET origin / host=h 1.1 close"},
	{"tab and bytes above 0x7f in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\tb\xc3\xa4 \xff longer than eight bytes\r\n\r\n", "GET origin / host=h 1.1"},
	{"empty value", "GET / HTTP/1.1\r\nHost: h\r\nX:\r\nY: \r\n\r\n", "GET origin / host=h 1.1"},
}

func TestRequestParse(t *testing.T) {
	for _, tt := range goodRequests {
		t.Run(tt.name, func(t *testing.T) {
			var r Request
			n, err := r.Parse([]byte(tt.head+"body"), nil)
			if err != nil || n != len(tt.head) {
				t.Fatalf("Parse(%q) = %d, %v; want %d", tt.head, n, err, len(tt.head))
			}
			if got := summary(&r); got != tt.want {
				t.Errorf("Parse(%q)\n got %s\nwant %s", tt.head, got, tt.want)
			}
		})
	}
}

var badRequests = []struct {
	name, head string
	want       Kind
}{
	{"two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"space before the method", " GET / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"two spaces before the target", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"two spaces before the version", "GET /  HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"space behind the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", BadRequest},
	{"tab for a space", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"no version", "GET /\r\nHost: h\r\n\r\n", BadRequest},
	{"HTTP/0.9", "GET /\r\n\r\n", BadRequest},
	{"small http", "GET / http/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", VersionNotSupported},
	{"HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionNotSupported},
	{"HTTP/11", "GET / HTTP/11\r\nHost: h\r\n\r\n", BadRequest},
	{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: h\r\n\r\n", BadRequest},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", TLSHandshake},
	{"method is no token", "G@T / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"method of 33 bytes", strings.Repeat("A", 33) + " / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", ConnectRefused},
	{"small connect", "connect h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", ConnectRefused},
	{"authority-form", "GET h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", ConnectRefused},
	{"relative target", "GET index.html HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"raw byte above 0x7f in the target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"control in the target", "GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"DEL in the target", "GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"GET *", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest},
	{"userinfo in the target", "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest},
	{"no host in the target", "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest},
	{"backslash in the target's host", "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest},
	{"no Host", "GET / HTTP/1.1\r\n\r\n", BadRequest},
	{"no Host beside absolute-form", "GET http://a/ HTTP/1.1\r\n\r\n", BadRequest},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", BadRequest},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", BadRequest},
	{"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n", BadRequest},
	{"userinfo in Host", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", BadRequest},
	{"path in Host", "GET / HTTP/1.1\r\nHost: h/p\r\n\r\n", BadRequest},
	{"list in Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BadRequest},
	{"port too large", "GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n", BadRequest},
	{"port with a sign", "GET / HTTP/1.1\r\nHost: h:+80\r\n\r\n", BadRequest},
	{"IPv6 without brackets", "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", BadRequest},
	{"IPv6 with a zone", "GET / HTTP/1.1\r\nHost: [fe80::1%eth0]\r\n\r\n", BadRequest},
	{"bare LF behind the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n", BadRequest},
	{"bare LF behind a field", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", BadRequest},
	{"bare LF for the empty line", "GET / HTTP/1.1\r\nHost: h\r\n\n", BadRequest},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", BadRequest},
	{"bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest},
	{"bare CR for the empty line", "GET / HTTP/1.1\r\nHost: h\r\n\rX", BadRequest},
	{"space before the colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n", BadRequest},
	{"tab before the colon", "GET / HTTP/1.1\r\nHost\t: h\r\n\r\n", BadRequest},
	{"obs-fold", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", BadRequest},
	{"white space before the first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", BadRequest},
	{"empty name", "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", BadRequest},
	{"no colon", "GET / HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n", BadRequest},
	{"name is no token", "GET / HTTP/1.1\r\nHost: h\r\nX(: y\r\n\r\n", BadRequest},
	{"byte above 0x7f in a name", "GET / HTTP/1.1\r\nHost: h\r\nX\xa0: y\r\n\r\n", BadRequest},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", BadRequest},
	{"control in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: abcdefgh\x1fijklmnop\r\n\r\n", BadRequest},
	{"DEL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\x7f\r\n\r\n", BadRequest},
	{"vertical tab before a value", "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\x0bchunked\r\n\r\n", BadRequest},
	{"Content-Length twice, different", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", BadRequest},
	{"Content-Length twice, equal", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", BadRequest},
	{"Content-Length as a list", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\n", BadRequest},
	{"Content-Length with a sign", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n", BadRequest},
	{"Content-Length below zero", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", BadRequest},
	{"Content-Length in hexadecimal", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\n", BadRequest},
	{"Content-Length with a space inside", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5 0\r\n\r\n", BadRequest},
	{"empty Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n", BadRequest},
	{"Content-Length beyond 63 bits", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\n", BadRequest},
	{"Content-Length and Transfer-Encoding", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest},
	{"Content-Length: 0 and Transfer-Encoding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", BadRequest},
	{"Transfer-Encoding twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", BadRequest},
	{"chunked not last", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", BadRequest},
	{"empty Transfer-Encoding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", BadRequest},
	{"Transfer-Encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest},
	{"gzip, chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", CodingNotSupported},
	{"identity", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", CodingNotSupported},
	{"xchunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", CodingNotSupported},
	{"quoted chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", BadRequest},
	{"unknown expectation", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-maybe\r\n\r\n", ExpectationFailed},
	{"Connection is no list of tokens", "GET / HTTP/1.1\r\nHost: h\r\nConnection: a b\r\n\r\n", BadRequest},
	{"Connection with 65 options", "GET / HTTP/1.1\r\nHost: h\r\nConnection: " + strings.Repeat("a,", 64) + "\r\n\r\n", BadRequest},
	{"Connection with 65 options, keep-alive last", "GET / HTTP/1.1\r\nHost: h\r\nConnection: " + strings.Repeat("a,", 64) + "keep-alive\r\n\r\n", BadRequest},
	{"65 times Connection", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("Connection: keep-alive\r\n", 65) + "\r\n", BadRequest},
	{"Upgrade is no list of protocols", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: a/b/c\r\n\r\n", BadRequest},
	{"two Origins", "GET / HTTP/1.1\r\nHost: h\r\nOrigin: null\r\nOrigin: http://h\r\n\r\n", BadRequest},
	{"two Sec-Fetch-Sites", "GET / HTTP/1.1\r\nHost: h\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n\r\n", BadRequest},
	{"Max-Forwards of OPTIONS", "OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: many\r\n\r\n", BadRequest},
	{"2049 fields", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 2048) + "\r\n", HeadTooLarge},
}

func TestRequestParseRefuses(t *testing.T) {
	for _, tt := range badRequests {
		t.Run(tt.name, func(t *testing.T) {
			var r Request
			n, err := r.Parse([]byte(tt.head), nil)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Parse(%q) = %d, %v; want an Error", tt.head, n, err)
			}
			if e.Kind != tt.want || e.Detail == "" {
				t.Errorf("Parse(%q): %q of kind %d; want kind %d", tt.head, e.Detail, e.Kind, tt.want)
			}
		})
	}
}

// inPieces parses b as it would arrive: up to each of the cuts first, every time in another buffer when moving.
func inPieces(parse func([]byte) (int, error), b []byte, moving bool, cuts ...int) (int, error) {
	for _, cut := range append(cuts, len(b)) {
		piece := b[:cut]
		if moving {
			piece = append(make([]byte, 0, cut+cut%7), piece...)
		}
		n, err := parse(piece)
		if n != 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

func TestRequestParseInPieces(t *testing.T) {
	for _, tt := range goodRequests {
		t.Run(tt.name, func(t *testing.T) {
			b := []byte(tt.head + "body")
			for cut := range len(tt.head) {
				for _, moving := range []bool{false, true} {
					var r Request
					n, err := inPieces(func(b []byte) (int, error) { return r.Parse(b, nil) }, b, moving, cut)
					if got := summary(&r); n != len(tt.head) || err != nil || got != tt.want {
						t.Fatalf("cut at %d, moving %v: %d, %v, %s; want %s", cut, moving, n, err, got, tt.want)
					}
				}
			}
			var r Request
			n, err := inPieces(func(b []byte) (int, error) { return r.Parse(b, nil) }, b, true, upTo(len(tt.head))...)
			if got := summary(&r); n != len(tt.head) || err != nil || got != tt.want {
				t.Fatalf("byte for byte: %d, %v, %s; want %s", n, err, got, tt.want)
			}
		})
	}
	for _, tt := range badRequests {
		t.Run("refused/"+tt.name, func(t *testing.T) {
			b := []byte(tt.head)
			for cut := range len(b) {
				var r Request
				_, err := inPieces(func(b []byte) (int, error) { return r.Parse(b, nil) }, b, true, cut)
				if err == nil {
					t.Fatalf("cut at %d: accepted", cut)
				}
			}
		})
	}
}

func upTo(n int) (cuts []int) {
	for i := range n {
		cuts = append(cuts, i)
	}
	return cuts
}

func TestRequestLimits(t *testing.T) {
	limits := &Limits{MaxRequestLine: 20, MaxHead: 40, MaxFields: 2}
	for _, tt := range []struct {
		name, head string
		want       Kind
		ok         bool
	}{
		{"line at the limit", "GET /345678 HTTP/1.1\r\nHost: h\r\n\r\n", 0, true},
		{"line beyond it", "GET /3456789 HTTP/1.1\r\nHost: h\r\n\r\n", LineTooLong, false},
		{"unfinished line at the limit", "GET /3456789012345678", LineTooLong, false},
		{"unfinished line that may still do", "GET /345678 HTTP/1.1\r", 0, true},
		{"head at the limit", "GET /345678 HTTP/1.1\r\nHost: 5678901\r\n\r\n" + "body", 0, true},
		{"head beyond it", "GET /345678 HTTP/1.1\r\nHost: 56789012345\r\n\r\n", HeadTooLarge, false},
		{"unfinished head beyond it", "GET /345678 HTTP/1.1\r\nHost: 5678901234567", HeadTooLarge, false},
		{"a TLS handshake", "\x16\x03\x01", TLSHandshake, false},
		{"fields beyond it", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\n\r\n", HeadTooLarge, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, drip := range []bool{false, true} {
				var r Request
				var cuts []int
				if drip {
					cuts = upTo(len(tt.head))
				}
				_, err := inPieces(func(b []byte) (int, error) { return r.Parse(b, limits) }, []byte(tt.head), false, cuts...)
				var e *Error
				if tt.ok && err != nil || !tt.ok && (!errors.As(err, &e) || e.Kind != tt.want) {
					t.Errorf("Parse(%q), drip %v: %v; want ok %v, kind %d", tt.head, drip, err, tt.ok, tt.want)
				}
			}
		})
	}
}

// A caller who sends a long line byte for byte must not cost the square of its length.
func TestRequestParseDripIsLinear(t *testing.T) {
	head := []byte("GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 1<<20))
	var r Request
	limits := &Limits{MaxHead: 2 << 20}
	for i := range head { // half a tera-byte to look at, were it the square
		if n, err := r.Parse(head[:i+1], limits); n != 0 || err != nil {
			t.Fatalf("Parse of %d bytes = %d, %v", i+1, n, err)
		}
	}
}

func TestRequestMethods(t *testing.T) {
	for _, tt := range []struct {
		method           string
		safe, idempotent bool
	}{
		{"GET", true, true}, {"HEAD", true, true}, {"OPTIONS", true, true}, {"TRACE", true, true},
		{"PUT", false, true}, {"DELETE", false, true}, {"POST", false, false}, {"PATCH", false, false}, {"get", false, false},
	} {
		r := Request{Method: []byte(tt.method)}
		if r.Safe() != tt.safe || r.Idempotent() != tt.idempotent {
			t.Errorf("%s: safe %v, idempotent %v; want %v, %v", tt.method, r.Safe(), r.Idempotent(), tt.safe, tt.idempotent)
		}
		if r.IsGET() != (tt.method == "GET") || r.IsHEAD() != (tt.method == "HEAD") {
			t.Errorf("%s: IsGET %v, IsHEAD %v", tt.method, r.IsGET(), r.IsHEAD())
		}
	}
}

func TestValidHost(t *testing.T) {
	for host, want := range map[string]bool{
		"a": true, "A-1_b.c~": true, "127.0.0.1": true, "a:1": true, "a:65535": true, "a.": true,
		"": false, ":80": false, "a:0": false, "a:b": false, "a:123456": false, "a b": false, "a%41": false, "a*": false,
		strings.Repeat("a", 262): false,
		"[::]":                   true, "[::1]:80": true, "[1:2:3:4:5:6:7:8]": true, "[1::8]": true, "[1::]": true,
		"[::ffff:192.0.2.1]": true, "[1:2:3:4:5:6:192.0.2.1]": true, "[1:2:3:4:5:6:7::]": true,
		"[]": false, "[::1": false, "[:::]": false, "[1::2::3]": false, "[1:2:3:4:5:6:7:8:9]": false, "[1:2:3]": false,
		"[12345::]": false, "[::1.2.3]": false, "[::1.2.3.256]": false, "[1:]": false, "[:1]": false, "[::1]x": false,
		"[1:2:3:4:5:6:7:192.0.2.1]": false, "[1:2:3:4:5:6:7:8::]": false, "[v1.a]": false, "[192.0.2.1]": false, "[::01.2.3.4]": false,
	} {
		if got := validHost([]byte(host)); got != want {
			t.Errorf("validHost(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestRequestGuardFields(t *testing.T) {
	var r Request
	head := "OPTIONS / HTTP/1.1\r\nHost: h\r\nConnection: Origin\r\nOrigin: \r\nSec-Fetch-Site: cross-site\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
	if _, err := r.Parse([]byte(head), nil); err != nil {
		t.Fatal(err)
	}
	if r.Origin == nil || len(r.Origin) != 0 || string(r.SecFetchSite) != "cross-site" || string(r.AccessControlRequestMethod) != "PUT" {
		t.Errorf("Origin %q, Sec-Fetch-Site %q, Access-Control-Request-Method %q", r.Origin, r.SecFetchSite, r.AccessControlRequestMethod)
	}
	if v, ok := r.Get(Host); !ok || string(v) != "h" {
		t.Errorf("Get(Host) = %q, %v", v, ok)
	}
	if v, ok := r.Get(Via); ok {
		t.Errorf("Get(Via) = %q, want none", v)
	}
	r.Reset()
	if _, err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), nil); err != nil {
		t.Fatal(err)
	}
	if r.Origin != nil || r.SecFetchSite != nil || len(r.Fields) != 1 {
		t.Errorf("after Reset: Origin %q, Sec-Fetch-Site %q, %d fields", r.Origin, r.SecFetchSite, len(r.Fields))
	}
}

func TestSkippingEightBytesAtATime(t *testing.T) {
	for _, tt := range []struct {
		name   string
		of     uint8
		skip   func([]byte, int) int
		filler []byte
	}{
		{"value", valueByte, skipValue, []byte{0x80}},
		{"target", targetByte, skipTarget, []byte{'~'}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n := range 40 {
				for at := range n {
					for c := range 256 {
						b := bytes.Repeat(tt.filler, n)
						b[at] = byte(c)
						if got, want := tt.skip(b, 0), skip(b, 0, tt.of); got != want {
							t.Fatalf("byte %#x at %d of %d: stopped at %d, want %d", c, at, n, got, want)
						}
					}
				}
			}
		})
	}
}

func TestRequestsFollowEachOther(t *testing.T) {
	b := []byte(lines("POST /1 HTTP/1.1", "Host: h", "Content-Length: 3") + "abc" + lines("GET /2 HTTP/1.1", "Host: h"))
	var r Request
	n, err := r.Parse(b, nil)
	if err != nil || r.ContentLength != 3 {
		t.Fatalf("first Parse = %d, %v, length %d", n, err, r.ContentLength)
	}
	b = b[n+3:]
	r.Reset()
	if n, err = r.Parse(b, nil); err != nil || n != len(b) || string(r.Path) != "/2" || r.HasLength {
		t.Errorf("second Parse = %d, %v, path %s, length there: %v", n, err, r.Path, r.HasLength)
	}
}

func TestEveryFlawIsTold(t *testing.T) {
	for i := sound + 1; i < flawCount; i++ {
		if flaws[i].Error() == "" || responseFlaws[i].Detail != flaws[i].Detail {
			t.Errorf("flaw %d has no text", i)
		}
		if k := responseFlaws[i].Kind; k != Malformed && k != HeadTooLarge && k != BadChunk {
			t.Errorf("%q is of kind %d in a response", responseFlaws[i].Detail, k)
		}
	}
}
