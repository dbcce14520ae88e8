package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

func TestUpstreamHasWhatTheConfigurationSays(t *testing.T) {
	s := newSite(t)
	snap := s.build(t, credentials+`
[upstream.default]
urls = ["https://10.0.0.1:8443", "https://10.0.0.2"]
balance = "first"
[upstream.default.pool]
max_active = 3
[upstream.default.retry]
attempts = 4
try_timeout = "2s"
on = ["unsent", "502", "timeout"]
max_body = "1KiB"
backoff = "7ms"
`, nil)
	u := find(t, snap, "default")
	if want := "https://10.0.0.1:8443,https://10.0.0.2"; u.URL() != want {
		t.Errorf("URL() = %q, want %q", u.URL(), want)
	}
	want := upstream.Retry{
		Attempts: 4, TryTimeout: 2 * time.Second, On: upstream.OnUnsent | upstream.On502 | upstream.OnTimeout,
		Budget: 0.2, MaxBody: 1024, Backoff: 7 * time.Millisecond,
	}
	if got := *u.Retry(); got != want {
		t.Errorf("Retry() = %+v, want %+v", got, want)
	}
	tried := new(upstream.Tried)
	for _, want := range [][3]string{{"10.0.0.1:8443", "10.0.0.1", "10.0.0.1:8443"}, {"10.0.0.2:443", "10.0.0.2", "10.0.0.2"}} {
		try, f := u.Pick(t.Context(), time.Now(), tried)
		if f != nil {
			t.Fatal(f)
		}
		try.End(time.Now(), upstream.Abandoned)
		e := try.Endpoint
		if got := [3]string{e.Address(), e.ServerName(), e.Host()}; got != want {
			t.Errorf("endpoint = %q, want %q", got, want)
		}
		if g := e.Gate(); g == nil || g.Limit() != 3 {
			t.Errorf("Gate() = %v, want one for 3", g)
		}
	}
}

func TestEveryConditionOfRetriesIsKnown(t *testing.T) {
	all := []string{
		config.RetryConnect, config.RetryUnsent, config.RetryReset, config.RetryBadGateway, config.RetryServiceUnavailable,
		config.RetryGatewayTimeout, config.RetryTimeout,
	}
	var seen upstream.Condition
	for _, reason := range all {
		c := conditions([]string{reason})
		if c == 0 || seen&c != 0 {
			t.Errorf("conditions(%q) = %b, and others are %b", reason, c, seen)
		}
		seen |= c
	}
}

func TestHostIsTheEndpointsOrTheRoutes(t *testing.T) {
	for name, c := range map[string]struct{ host, endpoint, route string }{
		"by default":    {"", "10.0.0.1:8443", ""},
		"the caller's":  {"host = \"preserve\"\n", "", ""},
		"another":       {"host = \"www.example\"\n", "", "www.example"},
		"a server name": {"server_name = \"api.example\"\n", "api.example:8443", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			snap := s.build(t, credentials+"[upstream.default]\nurl = \"https://10.0.0.1:8443\"\n"+c.host, nil)
			if got := only(t, find(t, snap, "default")).Host(); got != c.endpoint {
				t.Errorf("the endpoint's Host() = %q, want %q", got, c.endpoint)
			}
			if got := snap.Routes[0].Request.Host; got != c.route {
				t.Errorf("the route's Host = %q, want %q", got, c.route)
			}
		})
	}
}

func TestServersOfSRVHaveOneName(t *testing.T) {
	s := newSite(t)
	c := s.load(t, credentials+"[upstream.default]\nsrv = \"_x._tcp.example\"\nserver_name = \"x.example\"\n").Upstream["default"]
	want := []upstream.Server{{ServerName: "x.example", Host: "x.example"}}
	if got := servers(c); !slices.Equal(got, want) {
		t.Errorf("servers = %+v, want %+v", got, want)
	}
}

func TestLocationAndListenerKnowAllServers(t *testing.T) {
	s := newSite(t)
	snap := s.build(t, credentials+`
[upstream.default]
urls = ["https://a.example", "https://b.example:8443"]
[upstream.srv]
srv = "_x._tcp.example"
server_name = "x.example"
[[route]]
upstream = "default"
[[route]]
path_prefix = "/srv"
upstream = "srv"
`, nil)
	for i, want := range [][]string{
		{"https://a.example", "https://a.example:443", "https://b.example:8443"}, {"https://x.example", "https://x.example:443"},
	} {
		if got := encrypted(snap.Routes[i].Response.Location.Origins); !slices.Equal(got, want) {
			t.Errorf("origins = %q, want %q", got, want)
		}
	}
	for host, want := range map[string]bool{"a.example": true, "b.example": true, "x.example": true, "": false, "c.example": false} {
		if got := snap.Listener("http").NamesUpstream([]byte(host)); got != want {
			t.Errorf("NamesUpstream(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestCheckWithoutAPathMakesNoDifference(t *testing.T) {
	s := newSite(t)
	first := s.build(t, s.one(), nil)
	second := s.build(t, s.one()+"[upstream.default.health_check]\ninterval = \"3s\"\n", first)
	if find(t, first, "default") != find(t, second, "default") {
		t.Error("an upstream without checks changed with their interval")
	}
}

func TestPasswordsThatCannotBeReadAreReportedTogether(t *testing.T) {
	s := newSite(t)
	text := s.one() + `
proxy = "http://user@127.0.0.1:3128"
proxy_password_file = "missing-proxy"
[rate_limit]
shared = "redis://127.0.0.1:1/0"
shared_password_file = "missing-store"
[identity.more]
certificate = "missing.crt"
key = "missing.key"
`
	next, err := Build(context.Background(), s.load(t, text), nil, s.metrics)
	if err == nil || next != nil {
		t.Fatalf("Build = %v, %v; want an error", next, err)
	}
	for _, want := range []string{"missing-proxy", "missing-store", "missing.crt", "upstream.default.proxy_password_file", "rate_limit.shared_password_file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
	var problems config.Problems
	if !errors.As(err, &problems) {
		t.Errorf("the error has no Problems in it: %v", err)
	}
}

func TestANewProxyPasswordMakesTheUpstreamNew(t *testing.T) {
	s := newSite(t)
	write := func(password string) {
		if err := os.WriteFile(filepath.Join(s.dir, "password"), []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := s.one() + "proxy = \"http://user@127.0.0.1:3128\"\nproxy_password_file = \"password\"\n"
	write("one")
	first := s.build(t, text, nil)
	second := s.build(t, text, first)
	if find(t, first, "default") != find(t, second, "default") {
		t.Error("the upstream is new though its password is not")
	}
	write("two")
	if third := s.build(t, text, second); find(t, third, "default") == find(t, second, "default") {
		t.Error("the upstream is the old one though its password is new")
	}
}

func TestRunLastsAsLongAsWhatItBrought(t *testing.T) {
	s := newSite(t)
	two := s.one() + "[upstream.other]\nurl = \"https://10.0.0.1\"\n[[route]]\nupstream = \"default\"\n"
	first := s.build(t, two, nil)
	running := func(snap, prev *Snapshot) <-chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			snap.Run(t.Context(), prev, Told{Upstream: &upstream.Told{Event: func(upstream.Event) {}}})
		}()
		return done
	}
	ran := running(first, nil)
	second := s.build(t, s.one(), first)
	<-running(second, first) // has nothing of its own
	first.Retire(second)
	select {
	case <-ran:
		t.Error("Run of the first ended, though the second has taken over an upstream")
	default:
	}
	second.Retire(nil)
	<-ran
}

func TestDrainedEndpointsStaySo(t *testing.T) {
	s := newSite(t)
	text := func(more string) string {
		return credentials + "[upstream.default]\nurls = [\"https://10.0.0.1\", \"https://10.0.0.2\"]\n" + more
	}
	first := s.build(t, text(""), nil)
	if !find(t, first, "default").Drain("10.0.0.2:443") {
		t.Fatal("no such endpoint")
	}
	second := s.build(t, text("via = false\nmin_tls_version = \"1.3\"\n"), first)
	u := find(t, second, "default")
	if u == find(t, first, "default") {
		t.Fatal("the upstream is not a new one")
	}
	for i, want := range []string{"in", "drained"} {
		if got := u.Endpoints()[i]; got.State != want {
			t.Errorf("endpoint %+v, want it %s", got, want)
		}
	}
	if !u.Resume(time.Now(), "10.0.0.2:443") {
		t.Error("the endpoint cannot be resumed")
	}
}
