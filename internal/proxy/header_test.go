package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestHostSent(t *testing.T) {
	for name, c := range map[string]struct{ settings, want string }{
		"default":  {"server_name = \"localhost\"", "localhost"},
		"preserve": {"host = \"preserve\"", "LOCALHOST:99"},
		"a name":   {"host = \"api.example:1\"", "api.example:1"},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{settings: c.settings})
			s := k.dial().send("GET / HTTP/1.1\r\nHost: LOCALHOST:99\r\n\r\n").answer().seen(k)
			if got, _, _ := strings.Cut(s.Host, ":"); s.Host != c.want && !(name == "default" && got == c.want) {
				t.Errorf("Host %q, want %q", s.Host, c.want)
			}
			if s := k.dial().send("GET / HTTP/1.0\r\n\r\n").answer().seen(k); s.Host == "" {
				t.Error("no Host for a caller of HTTP/1.0")
			}
		})
	}
}

func TestRequestFields(t *testing.T) {
	sent := []string{
		"Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip",
		"Proxy-Authorization: Basic x", "Client-Cert: :x:", "Client-Cert-Chain: :x:", "X-Forwarded-Client-Cert: x", "Client_Cert: x",
		"X_Forwarded_For: 1", "X-SSL-Client-Cert: x", "HTTP2-Settings: x", "X-Kept: 1", "X-Kept: 2", "Cookie: a=b",
		"Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Via: 1.0 other",
	}
	never := []string{"X-Hop", "Keep-Alive", "Proxy-Connection", "Te", "Proxy-Authorization", "Client-Cert", "Client-Cert-Chain",
		"X-Forwarded-Client-Cert", "Client_Cert", "X_Forwarded_For", "X-Ssl-Client-Cert", "Http2-Settings", "Connection"}
	for name, c := range map[string]struct {
		settings string
		want     map[string]string // joined with "|"
	}{
		"strip": {"", map[string]string{"Forwarded": "", "X-Forwarded-For": "", "X-Forwarded-Host": "", "X-Forwarded-Proto": "", "Via": "1.0 other, 1.1 mtls-proxy"}},
		"pass":  {"forwarded = \"pass\"\nvia = false", map[string]string{"Forwarded": "for=1.2.3.4", "X-Forwarded-For": "1.2.3.4", "Via": "1.0 other"}},
		"add": {"forwarded = \"add\"", map[string]string{
			"Forwarded": `for=1.2.3.4, for=127.0.0.1;host="localhost";proto=http`, "X-Forwarded-For": "1.2.3.4, 127.0.0.1",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{settings: c.settings})
			s := k.dial().send(get("/", sent...)).answer().seen(k)
			for _, f := range never {
				if v := s.Headers[f]; v != nil {
					t.Errorf("%s: %q got through", f, v)
				}
			}
			for f, want := range c.want {
				if got := strings.Join(s.Headers[f], "|"); got != want {
					t.Errorf("%s: %q, want %q", f, got, want)
				}
			}
			if got := strings.Join(s.Headers["X-Kept"], "|"); got != "1|2" {
				t.Errorf("X-Kept: %q", got)
			}
		})
	}
	t.Run("add on a Unix socket", func(t *testing.T) {
		k := start(t, setup{settings: "forwarded = \"add\""})
		s := k.connect("unix", k.unix()).send(get("/")).answer().seen(k)
		if got := strings.Join(s.Headers["Forwarded"], "|"); got != `for=_unix;host="localhost";proto=http` {
			t.Errorf("Forwarded: %q", got)
		}
	})
}

func TestResponseFields(t *testing.T) {
	k := start(t, setup{upstream: answers("HTTP/1.1 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n" +
		"X-Frame-Options: SAMEORIGIN\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nVia: 1.1 other\r\nServer: theirs\r\nContent-Length: 0\r\n\r\n")})
	a := k.dial().send(get("/")).answer().ok(k)
	for field, want := range map[string]string{
		"X-Hop": "", "Keep-Alive": "", "Proxy-Authenticate": "", "X-Frame-Options": "SAMEORIGIN", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Via": "1.1 other, 1.1 mtls-proxy", "Server": "theirs", "Set-Cookie": "a=1|b=2",
		"Strict-Transport-Security": "",
	} {
		if got := strings.Join(a.Header[field], "|"); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	if a.Status != "200 Fine" || a.Header.Get("Date") == "" {
		t.Errorf("status %q, Date %q", a.Status, a.Header.Get("Date"))
	}
}

func TestEditsAndPrefixes(t *testing.T) {
	k := start(t, setup{config: `
[[route]]
path_prefix = "/bank"
strip_prefix = "/bank"
add_prefix = "/v2"
request_headers = { set = { "X-Set" = "ours", "Via" = "x" }, add = { "X-Add" = "more" }, remove = ["Cookie"] }
response_headers = { set = { "X-Frame-Options" = "SAMEORIGIN" }, remove = ["Content-Type"] }
`})
	a := k.dial().send(get("/bank/a%2Fb?q=/bank", "X-Set: theirs", "X-Add: one", "Cookie: c")).answer()
	s := a.seen(k)
	if s.Target != "/v2/a%2Fb?q=/bank" {
		t.Errorf("target %q", s.Target)
	}
	for field, want := range map[string]string{"X-Set": "ours", "X-Add": "one|more", "Cookie": "", "Via": "x"} {
		if got := strings.Join(s.Headers[field], "|"); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	if got := a.Header["X-Frame-Options"]; len(got) != 1 || got[0] != "SAMEORIGIN" || a.Header.Get("Content-Type") != "" {
		t.Errorf("response %v", a.Header)
	}
}

func TestLocationAndCookies(t *testing.T) {
	for _, rewrite := range []bool{true, false} {
		t.Run(fmt.Sprint(rewrite), func(t *testing.T) { locationAndCookies(t, rewrite) })
	}
}

func locationAndCookies(t *testing.T, rewrite bool) {
	k := start(t, setup{config: fmt.Sprintf("[[route]]\nrewrite_location = %v\n", rewrite)})
	c := k.dial()
	a := c.send("GET /redirect?to=/x HTTP/1.1\r\nHost: localhost:8080\r\n\r\n").answer().is(k, http.StatusFound)
	want := "http://localhost:8080/x"
	if !rewrite {
		want = k.upstream.URL() + "/x"
	}
	if got := a.Header.Get("Location"); got != want {
		t.Errorf("rewrite %v: Location %q, want %q", rewrite, got, want)
	}
	a = c.send(get("/cookie")).answer().ok(k)
	if got := a.Header.Get("Set-Cookie"); strings.Contains(got, "Secure") == rewrite || strings.Contains(got, "Domain") == rewrite {
		t.Errorf("rewrite %v: Set-Cookie %q", rewrite, got)
	}
}

// What is not HTTP/1.1 of the upstream is passed on as HTTP/1.1 of ours.
func TestVersions(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		head, err := c.ReadHead()
		if err != nil {
			return
		}
		line, _, _ := strings.Cut(head, "\r\n")
		fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
	})})
	c := k.dial().send("GET /old HTTP/1.0\r\n\r\n")
	if head := c.rawHead(); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") {
		t.Errorf("head %q", head)
	}
	c.read("GET /old HTTP/1.1")
}

// The answer to a TRACE shows its sender what the upstream got.
func TestTraceCarriesNothingOfTheOperators(t *testing.T) {
	const secret = "[[route]]\nMETHODS\nrequest_headers.set.Authorization = \"Bearer secret\"\nrequest_headers.add.X-Key = \"secret\"\n"
	echo := script(func(c *demo.Conn) {
		for {
			head, err := c.ReadHead()
			if err != nil {
				return
			}
			c.WriteString(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(head), head))
		}
	})
	t.Run("not named", func(t *testing.T) {
		k := start(t, setup{upstream: echo, config: strings.ReplaceAll(secret, "METHODS\n", "")})
		a := k.dial().send(request("TRACE", "/x")).answer().problem(k, fault.MethodNotAllowed)
		if allow := a.Header.Get("Allow"); strings.Contains(allow, "TRACE") || !strings.Contains(allow, "GET") {
			t.Errorf("Allow: %q", allow)
		}
		if a := k.dial().send(get("/x")).answer().ok(k); !strings.Contains(a.text, "secret") {
			t.Errorf("the upstream of a GET did not get the operator's fields: %q", a.text)
		}
	})
	for _, method := range []string{"TRACE", "TRACK"} { // servers on Windows have TRACK
		t.Run("named "+method, func(t *testing.T) {
			k := start(t, setup{upstream: echo, config: strings.ReplaceAll(secret, "METHODS", `methods = ["`+method+`"]`)})
			if a := k.dial().send(request(method, "/x")).answer().ok(k); strings.Contains(a.text, "secret") {
				t.Errorf("the caller got %q", a.text)
			}
		})
	}
}
