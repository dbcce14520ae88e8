package snapshot

import (
	"slices"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

func TestRouteHasWhatTheConfigurationSays(t *testing.T) {
	s := newSite(t)
	text := s.one() + `
forwarded = "add"
[upstream.plain]
url = "https://10.0.0.1"
via = false
host = "preserve"
[[route]]
path_prefix = "/bank"
strip_prefix = "/bank"
add_prefix = "/v2"
upstream = "default"
max_request_body = "3kB"
rewrite_location = false
[route.request_headers]
set = { X-Who = "us" }
[[route]]
upstream = "plain"
[route.response_headers]
remove = ["Server"]
`
	snap := s.build(t, text, nil)
	if len(snap.Routes) != 2 {
		t.Fatalf("%d routes, want 2", len(snap.Routes))
	}
	bank, plain := snap.Routes[0], snap.Routes[1]
	if bank.Upstream != find(t, snap, "default") || plain.Upstream != find(t, snap, "plain") {
		t.Error("the routes lead elsewhere")
	}
	if bank.MaxBody != 3000 || plain.MaxBody != 10<<20 {
		t.Errorf("MaxBody = %d, %d; want 3000, %d", bank.MaxBody, plain.MaxBody, 10<<20)
	}
	q, p := bank.Request, plain.Request
	if e := only(t, bank.Upstream); e.Host() != "127.0.0.1:"+port(s) || e.ServerName() != "127.0.0.1" {
		t.Errorf("bank's endpoint has Host %q, and is called %q", e.Host(), e.ServerName())
	}
	if e := only(t, plain.Upstream); e.Host() != "" || e.ServerName() != "10.0.0.1" {
		t.Errorf("plain's endpoint has Host %q, and is called %q", e.Host(), e.ServerName())
	}
	if q.Host != "" || q.StripPrefix != "/bank" || q.AddPrefix != "/v2" || q.Via != "1.1 mtls-proxy" ||
		q.Forwarded != http1.ForwardedAdd || q.Edits == nil {
		t.Errorf("request of bank = %+v", q)
	}
	if p.Host != "" || p.Via != "" || p.Forwarded != http1.ForwardedStrip || p.Edits != nil {
		t.Errorf("request of plain = %+v", p)
	}
	if r := bank.Response; r.Location != nil || r.Via != "1.1 mtls-proxy" || r.Edits != nil {
		t.Errorf("response of bank = %+v", r)
	}
	if r := plain.Response; r.Location == nil || r.Via != "" || r.Edits == nil {
		t.Errorf("response of plain = %+v", r)
	}
}

func port(s *site) string {
	addr := s.server.Addr()
	for i := len(addr) - 1; ; i-- {
		if addr[i] == ':' {
			return addr[i+1:]
		}
	}
}

// encrypted returns those of the origins that are of https.
func encrypted(origins []string) (list []string) {
	for _, o := range origins {
		if strings.HasPrefix(o, "https:") {
			list = append(list, o)
		}
	}
	return list
}

// A server behind a TLS terminator may redirect to http and its own name.
func TestLocationKnowsTheUpstreamInPlainText(t *testing.T) {
	s := newSite(t)
	snap := s.build(t, credentials+"[upstream.default]\nurl = \"https://api.example:8443\"\nhost = \"preserve\"\n", nil)
	l := snap.Routes[0].Response.Location
	for _, origin := range []string{"http://api.example", "http://api.example:80", "http://api.example:8443"} {
		if !slices.Contains(l.Origins, origin) {
			t.Errorf("%s is not among %q", origin, l.Origins)
		}
	}
	if !l.OwnHost {
		t.Error("the caller's Host is no name of an upstream that is sent it")
	}
}

func TestLocationKnowsTheUpstreamByAllItsNames(t *testing.T) {
	for name, c := range map[string]struct {
		upstream         string
		origins, domains []string
	}{
		"the url": {
			`url = "https://api.example"`,
			[]string{"https://api.example", "https://api.example:443"}, []string{"api.example"},
		},
		"a port": {
			`url = "https://api.example:8443"`,
			[]string{"https://api.example:8443"}, []string{"api.example"},
		},
		"the port that goes without saying": {
			`url = "https://api.example:443"`,
			[]string{"https://api.example", "https://api.example:443"}, []string{"api.example"},
		},
		"a server name": {
			"url = \"https://10.0.0.1:8443\"\nserver_name = \"api.example\"",
			[]string{"https://10.0.0.1:8443", "https://api.example:8443"}, []string{"10.0.0.1", "api.example"},
		},
		"a host of its own": {
			"url = \"https://10.0.0.1:8443\"\nhost = \"www.example\"",
			[]string{"https://10.0.0.1:8443", "https://www.example", "https://www.example:443"}, []string{"10.0.0.1", "www.example"},
		},
		"a host with a port": {
			"url = \"https://api.example\"\nhost = \"www.example:444\"",
			[]string{"https://api.example", "https://api.example:443", "https://www.example:444"}, []string{"api.example", "www.example"},
		},
		"the caller's host": {
			"url = \"https://api.example\"\nhost = \"preserve\"",
			[]string{"https://api.example", "https://api.example:443"}, []string{"api.example"},
		},
		"IPv6": {
			`url = "https://[2001:db8::1]:8443"`,
			[]string{"https://[2001:db8::1]:8443"}, []string{"2001:db8::1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			snap := s.build(t, credentials+"[upstream.default]\n"+c.upstream+"\n", nil)
			l := snap.Routes[0].Response.Location
			if !slices.Equal(encrypted(l.Origins), c.origins) || !slices.Equal(l.Domains, c.domains) {
				t.Errorf("location = %q, %q; want %q, %q", l.Origins, l.Domains, c.origins, c.domains)
			}
		})
	}
}

func TestListenerAllowsItsHostsAndKnowsTheUpstreams(t *testing.T) {
	s := newSite(t)
	text := credentials + `
[upstream.default]
url = "https://API.example:8443"
[upstream.six]
url = "https://[2001:db8::1]"
[listener.http]
[listener.named]
address = []
allowed_hosts = ["Local.Test"]
browser_requests = "allow"
[listener.any]
address = []
allowed_hosts = ["*"]
[[route]]
upstream = "default"
`
	snap := s.build(t, text, nil)
	for _, c := range []struct {
		listener, host string
		want           bool
	}{
		{"http", "localhost", true}, {"http", "127.0.0.1", true}, {"http", "[::1]", true}, {"http", "api.example", false},
		{"http", "[2001:db8::1]", false}, {"http", "evil.example", false}, {"http", "local.test", false}, {"http", "*", false},
		{"named", "local.test", true}, {"named", "localhost", false}, {"named", "api.example", false},
		{"any", "evil.example", true},
	} {
		if got := snap.Listener(c.listener).AllowsHost([]byte(c.host)); got != c.want {
			t.Errorf("%s allows %s = %v, want %v", c.listener, c.host, got, c.want)
		}
	}
	for host, want := range map[string]bool{"api.example": true, "[2001:db8::1]": true, "localhost": false} {
		if got := snap.Listener("http").NamesUpstream([]byte(host)); got != want {
			t.Errorf("%s names an upstream = %v, want %v", host, got, want)
		}
	}
	if l := snap.Listener("nobody"); l != nil {
		t.Errorf("Listener of no name = %v, want nil", l)
	}
	if !snap.Listener("http").Guarded || snap.Listener("named").Guarded {
		t.Error("pages are let in by http, or kept out by named")
	}
}

func TestSecurityHeadersAreThoseThatAreSet(t *testing.T) {
	for name, c := range map[string]struct {
		table string
		want  []http1.Default
	}{
		"by default": {"", []http1.Default{
			{Name: "X-Content-Type-Options", Value: "nosniff"}, {Name: "X-Frame-Options", Value: "DENY"}, {Name: "Referrer-Policy", Value: "no-referrer"},
		}},
		"off": {"enabled = false\n", nil},
		"others": {"strict_transport_security = \"max-age=1\"\nframe_options = \"\"\ncontent_type_options = \"\"\nreferrer_policy = \"\"\n" +
			"content_security_policy = \"default-src 'none'\"\n", []http1.Default{
			{Name: "Strict-Transport-Security", Value: "max-age=1"}, {Name: "Content-Security-Policy", Value: "default-src 'none'"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			snap := s.build(t, s.one()+"[security_headers]\n"+c.table, nil)
			if !slices.Equal(snap.Defaults, c.want) || !slices.Equal(snap.Routes[0].Response.Defaults, c.want) {
				t.Errorf("headers = %v, and %v on a route; want %v", snap.Defaults, snap.Routes[0].Response.Defaults, c.want)
			}
		})
	}
}
