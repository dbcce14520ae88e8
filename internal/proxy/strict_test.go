package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// What two readers could take for different requests is refused, and nothing of it reaches the upstream.
func TestRefusedRequests(t *testing.T) {
	k := start(t, setup{})
	const host = "Host: localhost\r\n"
	n := 0
	for name, c := range map[string]struct {
		text  string
		token fault.Token
	}{
		"two lengths":           {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", fault.BadRequest},
		"length twice":          {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", fault.BadRequest},
		"length in a list":      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", fault.BadRequest},
		"signed length":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", fault.BadRequest},
		"huge length":           {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", fault.BadRequest},
		"length and chunked":    {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fault.BadRequest},
		"unknown coding":        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", fault.TransferCodingNotSupported},
		"gzip, chunked":         {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", fault.TransferCodingNotSupported},
		"chunked, gzip":         {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, gzip\r\n\r\n", fault.BadRequest},
		"chunked in 1.0":        {"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fault.BadRequest},
		"bare LF":               {"GET / HTTP/1.1\n" + "Host: localhost\n\n", fault.BadRequest},
		"bare LF in a field":    {"GET / HTTP/1.1\r\n" + host + "A: b\nC: d\r\n\r\n", fault.BadRequest},
		"bare CR":               {"GET / HTTP/1.1\r\n" + host + "A: b\rC: d\r\n\r\n", fault.BadRequest},
		"space before colon":    {"POST / HTTP/1.1\r\n" + host + "Content-Length : 3\r\n\r\nabc", fault.BadRequest},
		"fold":                  {"GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", fault.BadRequest},
		"NUL":                   {"GET / HTTP/1.1\r\n" + host + "A: \x00\r\n\r\n", fault.BadRequest},
		"NUL in the target":     {"GET /\x00 HTTP/1.1\r\n" + host + "\r\n", fault.BadRequest},
		"space in the target":   {"GET /a b HTTP/1.1\r\n" + host + "\r\n", fault.BadRequest},
		"no Host":               {"GET / HTTP/1.1\r\n\r\n", fault.BadRequest},
		"two Hosts":             {"GET / HTTP/1.1\r\n" + host + host + "\r\n", fault.BadRequest},
		"bad Host":              {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", fault.BadRequest},
		"user in Host":          {"GET / HTTP/1.1\r\nHost: u@localhost\r\n\r\n", fault.BadRequest},
		"CONNECT":               {"CONNECT localhost:443 HTTP/1.1\r\n" + host + "\r\n", fault.ConnectNotSupported},
		"authority form":        {"GET localhost:443 HTTP/1.1\r\n" + host + "\r\n", fault.ConnectNotSupported},
		"other scheme":          {"GET ftp://localhost/ HTTP/1.1\r\n" + host + "\r\n", fault.BadRequest},
		"HTTP/2":                {"GET / HTTP/2.0\r\n" + host + "\r\n", fault.HTTPVersionNotSupported},
		"no version":            {"GET /\r\n\r\n", fault.BadRequest},
		"TLS":                   {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", fault.TLSOnPlainPort},
		"other expectation":     {"GET / HTTP/1.1\r\n" + host + "Expect: more\r\n\r\n", fault.ExpectationFailed},
		"two Origins":           {"GET / HTTP/1.1\r\n" + host + "Origin: a\r\nOrigin: b\r\n\r\n", fault.BadRequest},
		"bad Max-Forwards":      {"OPTIONS / HTTP/1.1\r\n" + host + "Max-Forwards: x\r\n\r\n", fault.BadRequest},
		"long target":           {"GET /" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\n" + host + "\r\n", fault.URITooLong},
		"endless target":        {"GET /" + strings.Repeat("a", 20<<10), fault.URITooLong},
		"large head":            {"GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("a", 70<<10) + "\r\n\r\n", fault.HeaderTooLarge},
		"endless head":          {"GET / HTTP/1.1\r\n" + host + strings.Repeat("A: aaaaaaaa\r\n", 9000), fault.HeaderTooLarge},
		"many fields":           {"GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 3000) + "\r\n", fault.HeaderTooLarge},
		"field without a name":  {"GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n", fault.BadRequest},
		"field without a colon": {"GET / HTTP/1.1\r\n" + host + "A\r\n\r\n", fault.BadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			caller := k.dial()
			caller.send(get("/good")).answer().ok(k)
			if a := caller.send(c.text).answer().problem(k, c.token); !a.Close {
				t.Error("no word of the close")
			}
			caller.half().closed()
		})
	}
	if got := k.upstream.Stats().Requests; got != n {
		t.Errorf("%d requests reached the upstream, want the %d good ones", got, n)
	}
}

// RFC 9112 section 6.1: 501 tells the caller that the coding is at fault, not the message.
func TestUnknownTransferCoding(t *testing.T) {
	k := start(t, setup{})
	for _, coding := range []string{"gzip", "gzip, chunked"} {
		c := k.dial().send(request("POST", "/", "Transfer-Encoding: "+coding))
		c.answer().is(k, 501).problem(k, fault.TransferCodingNotSupported)
		c.half().closed()
	}
}

// A good request is answered before the bad one behind it is refused.
func TestRefusalBehindAGoodRequest(t *testing.T) {
	k := start(t, setup{})
	c := k.dial().send(get("/good") + "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n" + get("/never"))
	c.answer().ok(k)
	c.answer().problem(k, fault.BadRequest)
	c.closed()
	if n := k.upstream.Stats().Requests; n != 1 {
		t.Errorf("%d requests reached the upstream, want 1", n)
	}
}

func TestBadChunksOfTheCaller(t *testing.T) {
	k := start(t, setup{})
	n := 0
	for name, body := range map[string]string{
		"no size":         "xyz\r\n",
		"negative":        "-1\r\n",
		"huge size":       "fffffffffffffffff\r\n",
		"0x":              "0x5\r\nfive.\r\n",
		"bare LF":         "5\nfive.\r\n0\r\n\r\n",
		"no end":          "5\r\nfive.0\r\n\r\n",
		"longer":          "5\r\nfive..\r\n0\r\n\r\n",
		"bad trailers":    "0\r\nno colon\r\n\r\n",
		"large trailers":  "0\r\nA: " + strings.Repeat("a", 70<<10) + "\r\n\r\n",
		"padded size":     "5  \r\nfive.\r\n0\r\n\r\n",
		"no extension":    "5;\r\nfive.\r\n0\r\n\r\n",
		"no token":        "5;a@b\r\nfive.\r\n0\r\n\r\n",
		"long extensions": "5;" + strings.Repeat("x", 20<<10) + "\r\nfive.\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			n++
			c := k.dial().send(request("POST", "/", "Transfer-Encoding: chunked") + "3\r\nabc\r\n" + body + get("/never"))
			if a := c.answer(); a.StatusCode != 400 && a.StatusCode != 431 || !a.Close || !strings.Contains(a.text, `"blame":"caller"`) {
				t.Errorf("got %d, close %v: %s", a.StatusCode, a.Close, a.text)
			}
			c.half().closed()
		})
	}
	k.until("all are recorded", func() bool { return k.active() == 0 })
	if n := k.metric(`mtls_proxy_response_status_codes_total{code="200",upstream="default"}`); n != 0 {
		t.Errorf("%v were answered with 200", n)
	}
}

func TestBodyTooLarge(t *testing.T) {
	const limit = "[[route]]\nmax_request_body = \"10kB\"\n"
	t.Run("announced", func(t *testing.T) {
		k := start(t, setup{config: limit})
		c := k.dial().send(request("POST", "/", "Content-Length: 10001"))
		if a := c.answer().problem(k, fault.RequestTooLarge); !strings.Contains(a.text, "10000 bytes") {
			t.Errorf("no word of the limit: %s", a.text)
		}
		c.ended()
		k.faulted(fault.RequestTooLarge, 413)
		if n := k.upstream.Stats().Connections; n != 0 {
			t.Errorf("it reached the upstream")
		}
		k.dial().send(post("/", strings.Repeat("x", 10000))).answer().ok(k)
	})
	t.Run("noticed on the way", func(t *testing.T) {
		k := start(t, setup{config: limit})
		c := k.dial().send(request("POST", "/", "Transfer-Encoding: chunked"))
		for range 3 {
			c.send(fmt.Sprintf("%x\r\n%s\r\n", 5000, strings.Repeat("x", 5000)))
		}
		c.answer().problem(k, fault.RequestTooLarge)
		c.half().closed()
		k.faulted(fault.RequestTooLarge, 413)
		k.until("the upstream's connection is closed", func() bool { return k.upstream.Stats().Open == 0 })
	})
}

func TestPathsAndMethods(t *testing.T) {
	k := start(t, setup{config: `
[[route]]
path_prefix = "/public"
methods = ["GET", "POST"]
[[route]]
path_prefix = "/private"
methods = ["DELETE"]
`})
	c := k.dial()
	c.send(get("/public/x")).answer().ok(k)
	c.send(get("/nothing")).answer().problem(k, fault.NoRoute)
	c.send(get("/publicity")).answer().problem(k, fault.NoRoute)
	a := c.send(request("PATCH", "/public")).answer().problem(k, fault.MethodNotAllowed)
	if got := a.Header.Get("Allow"); got != "GET, HEAD, POST" {
		t.Errorf("Allow: %q", got)
	}
	for _, path := range []string{"/public/../private", "/public/%2e%2e/private", "/public/..%2fprivate", "/public//../private", `/public/..\private`, "/public/.%2e/private"} {
		c.send(get(path)).answer().problem(k, fault.AmbiguousPath)
	}
	if n := k.upstream.Stats().Requests; n != 1 {
		t.Errorf("%d requests reached the upstream, want 1", n)
	}
	c.send(get("/public/a//b/./c%2f")).answer() // stays within its route, whatever is resolved
}

// What an upstream reads stays below what the route added, and below what it is for.
func TestSentPathsStayBelowTheirPrefixes(t *testing.T) {
	k := start(t, setup{config: `
[[route]]
path_prefix = "/bank"
strip_prefix = "/bank"
add_prefix = "/tenant-a/v1"
[[route]]
path_prefix = "/shop/api"
strip_prefix = "/shop"
[[route]]
path_prefix = "/admin"
methods = ["GET"]
[[route]]
host = "added.localhost"
add_prefix = "/tenant-a"
[[route]]
`})
	c := k.dial()
	ask := func(host, path string) *caller {
		return c.send("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	}
	for _, q := range [][3]string{
		{"localhost", "/bank/x/../y%20z", "/tenant-a/v1/x/../y%20z"},
		{"localhost", "/shop/api/x/../y", "/api/x/../y"},
		{"added.localhost", "/x;y/z", "/tenant-a/x;y/z"},
	} {
		if s := ask(q[0], q[1]).answer().seen(k); s.Target != q[2] {
			t.Errorf("%s was sent as %s, want %s", q[1], s.Target, q[2])
		}
	}
	before := k.upstream.Stats().Requests
	for _, q := range [][2]string{
		{"localhost", "/bank/../../bank/out"}, {"localhost", "/bank/..%2f..%2f..%2fout"}, {"localhost", "/shop/api/../../shop/api/out"},
		{"added.localhost", "/../out"}, {"added.localhost", "/%2e%2e/out"}, {"added.localhost", "/..%2fout"}, {"added.localhost", "/x/../../out"},
		{"added.localhost", "/%c0%ae%c0%ae/out"}, {"added.localhost", "/..;/out"}, {"added.localhost", "/..%09/out"},
		{"localhost", "/admin;x"}, {"localhost", "/;/admin"}, {"localhost", "/%61dmin;a=b/c"}, {"localhost", "/ADMIN"}, {"localhost", "/admin."},
		{"localhost", "/admin%20"}, {"localhost", "/admin%00"}, {"localhost", "/admin%3f"},
	} {
		ask(q[0], q[1]).answer().problem(k, fault.AmbiguousPath)
	}
	if a := c.send(request("POST", "/admin/x")).answer().problem(k, fault.MethodNotAllowed); a.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", a.Header.Get("Allow"))
	}
	if n := k.upstream.Stats().Requests; n != before {
		t.Errorf("%d of them reached the upstream", n-before)
	}
}

// HEAD never gets a body, not of ours either.
func TestFaultToHead(t *testing.T) {
	k := start(t, setup{config: "[[route]]\npath_prefix = \"/only\"\n"})
	c := k.dial()
	for range 2 {
		if a := c.send(request("HEAD", "/")).answerTo("HEAD"); a.StatusCode != 404 || a.ContentLength <= 0 {
			t.Errorf("got %d with length %d", a.StatusCode, a.ContentLength)
		}
	}
}
