package config

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// several has what there is when a service is in more than one place, and what
// keeps callers from each other.
const several = `[identity.default]
certificate = "client.crt"
key = "client.key"
[trust.default]
ca = "ca.crt"
[upstream.each]
urls = ["https://A.example.net:8443", "https://b.example.net", "https://[2001:db8::1]:9443/"]
balance = "round_robin"
[upstream.one]
urls = ["https://10.0.0.1", "https://10.0.0.2:8443"]
server_name = "API.example.net"
proxy = "http://bill%20ing@PROXY.corp:3128"
proxy_password_file = "proxy.password"
[upstream.one.retry]
attempts = 0
on = ["502", "timeout"]
budget = 1
[upstream.one.circuit_breaker]
failure_ratio = 0.25
[upstream.one.health_check]
path = "/healthz"
expect = [200, 401]
[upstream.same]
urls = ["https://a.example.net.:8443", "https://A.example.net:9443"]
host = "preserve"
[upstream.records]
srv = "_api._tcp.Example.net."
server_name = "api.example.net"
[listener.http]
max_connections_per_caller = 20
[[route]]
host = "each.localhost"
upstream = "each"
rate_limit = { requests_per_second = 0.3, key = "header:X-Api-Key" }
[[route]]
host = "one.localhost"
upstream = "one"
[route.rate_limit]
requests_per_second = 50
burst = 51
[[route]]
host = "same.localhost"
upstream = "same"
[[route]]
upstream = "records"
[rate_limit]
key = "ip"
shared = "unix:///run/redis/redis.sock?db=3"
shared_password_file = "/etc/redis.password"
shared_failure = "deny"
`

func loadSeveral(t *testing.T) (cfg *Config, dir string) {
	t.Helper()
	dir = folderWith(t, map[string]string{"config.toml": several})
	return mustLoad(t, filepath.Join(dir, "config.toml"), Options{}), dir
}

func TestEndpoints(t *testing.T) {
	cfg, _ := loadSeveral(t)
	tests := []struct {
		upstream  string
		endpoints []string // address, server name and Host
		names     []string
		target    string
		host      string
	}{
		{
			upstream: "each",
			endpoints: []string{
				"a.example.net:8443 a.example.net a.example.net:8443",
				"b.example.net:443 b.example.net b.example.net",
				"[2001:db8::1]:9443 2001:db8::1 [2001:db8::1]:9443",
			},
			names:  []string{"a.example.net", "b.example.net", "2001:db8::1"},
			target: "https://a.example.net:8443,https://b.example.net,https://[2001:db8::1]:9443",
			host:   "a.example.net:8443",
		},
		{
			upstream: "one",
			endpoints: []string{
				"10.0.0.1:443 api.example.net api.example.net",
				"10.0.0.2:8443 api.example.net api.example.net:8443",
			},
			names:  []string{"api.example.net"},
			target: "https://10.0.0.1,https://10.0.0.2:8443",
			host:   "api.example.net",
		},
		{
			upstream: "same",
			endpoints: []string{
				"a.example.net.:8443 a.example.net ",
				"a.example.net:9443 a.example.net ",
			},
			names:  []string{"a.example.net"},
			target: "https://a.example.net.:8443,https://a.example.net:9443",
		},
		{
			upstream: "records",
			names:    []string{"api.example.net"},
			target:   "srv:_api._tcp.example.net",
			host:     "api.example.net",
		},
	}
	for _, tt := range tests {
		u := cfg.Upstream[tt.upstream]
		var got []string
		for _, e := range u.Endpoints() {
			got = append(got, e.Address+" "+e.ServerName+" "+e.Host)
		}
		if !slices.Equal(got, tt.endpoints) {
			t.Errorf("%s: Endpoints() = %q, want %q", tt.upstream, got, tt.endpoints)
		}
		if names := u.ServerNames(); !slices.Equal(names, tt.names) {
			t.Errorf("%s: ServerNames() = %q, want %q", tt.upstream, names, tt.names)
		}
		if target := u.Target(); target != tt.target {
			t.Errorf("%s: Target() = %q, want %q", tt.upstream, target, tt.target)
		}
		if host := u.HostField(); host != tt.host {
			t.Errorf("%s: HostField() = %q, want %q", tt.upstream, host, tt.host)
		}
	}
	if u := cfg.Upstream["each"]; u.URL != nil || u.ServerName != "" {
		t.Errorf("with several hosts URL = %v and ServerName = %q; want none", u.URL, u.ServerName)
	}
	if u := cfg.Upstream["same"]; u.ServerName != "a.example.net" {
		t.Errorf("ServerName = %q with one host on two ports", u.ServerName)
	}
}

func TestOneURLIsOneEndpoint(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": full})
	u := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}).Upstream["bank.example"]
	want := []Endpoint{{URL: u.URL, Address: "[2001:db8::1]:8443", ServerName: "bank.example", Host: "bank.example:8443", Weight: 1}}
	if got := u.Endpoints(); !reflect.DeepEqual(got, want) || u.Target() != "https://[2001:db8::1]:8443" {
		t.Errorf("Endpoints() = %+v, want %+v; Target() = %s", got, want, u.Target())
	}
}

func TestWhatUpstreamsStartWith(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest})
	u := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}).Upstream["default"]
	if u.HealthCheck.Path != "" || u.Proxy != nil || u.Balance != BalanceLeastRequests {
		t.Errorf("health check %+v, proxy %v, balance %s", u.HealthCheck, u.Proxy, u.Balance)
	}
	if r := u.Retry; r.Attempts != 2 || r.TryTimeout.Duration != 0 || r.Budget != 0.2 || r.MaxBody.Bytes != 64<<10 || r.Backoff.Duration != 25*time.Millisecond {
		t.Errorf("retry = %+v", r)
	}
	if b := u.CircuitBreaker; b.FailureRatio != 0.5 || b.MinRequests != 20 || b.Window.Duration != 10*time.Second || b.OpenFor.Duration != 5*time.Second || b.Probes != 3 {
		t.Errorf("circuit breaker = %+v", b)
	}
}

func TestTablesOfAnUpstreamKeepTheirOtherDefaults(t *testing.T) {
	cfg, dir := loadSeveral(t)
	u := cfg.Upstream["one"]
	if r := u.Retry; r.Attempts != 0 || !slices.Equal(r.On, []string{RetryBadGateway, RetryTimeout}) || r.Budget != 1 || r.MaxBody.Bytes != 64<<10 {
		t.Errorf("retry = %+v", r)
	}
	if b := u.CircuitBreaker; b.FailureRatio != 0.25 || b.MinRequests != 20 {
		t.Errorf("circuit breaker = %+v", b)
	}
	if h := u.HealthCheck; h.Path != "/healthz" || h.Interval.Duration != 10*time.Second || !slices.Equal(h.Expect, []int{200, 401}) {
		t.Errorf("health check = %+v", h)
	}
	if p := u.Proxy; p.Scheme != "http" || p.User.Username() != "bill ing" || p.Host != "proxy.corp:3128" {
		t.Errorf("proxy = %v", p)
	}
	if got, want := u.ProxyPasswordFile, filepath.Join(dir, "proxy.password"); got != want {
		t.Errorf("proxy_password_file = %s, want %s", got, want)
	}
	if got, want := cfg.Origin("upstream.one.retry.on").String(), filepath.Join(dir, "config.toml")+":16:1"; got != want {
		t.Errorf("origin of retry.on = %s, want %s", got, want)
	}
}

func TestRoutesHaveALimitOfTheirOwnOrNone(t *testing.T) {
	cfg, dir := loadSeveral(t)
	var got []RateLimit
	for _, r := range cfg.Route {
		if r.RateLimit != nil {
			got = append(got, *r.RateLimit)
		}
	}
	want := []RateLimit{{0.3, 1, "header:X-Api-Key"}, {50, 51, RateKeyAll}}
	if !slices.Equal(got, want) {
		t.Errorf("limits of routes are %+v, want %+v and two routes without", got, want)
	}
	if name := got[0].Header(); name != "X-Api-Key" || got[1].Header() != "" || cfg.RateLimit.Header() != "" {
		t.Errorf("Header() = %q, %q, %q", name, got[1].Header(), cfg.RateLimit.Header())
	}
	if g := cfg.RateLimit; g.Key != RateKeyIP || g.RequestsPerSecond != 100 || g.Shared == "" || g.SharedFailure != SharedFailureDeny {
		t.Errorf("rate_limit = %+v", g)
	}
	if got, want := cfg.Origin("route[1].rate_limit.key").String(), filepath.Join(dir, "config.toml")+":34:43"; got != want {
		t.Errorf("origin of the key = %s, want %s", got, want)
	}
	if n := cfg.Listener["http"].MaxConnectionsPerCaller; n != 20 {
		t.Errorf("max_connections_per_caller = %d, want 20", n)
	}
}

func TestBurstOfARouteFollowsItsRate(t *testing.T) {
	for rate, want := range map[string]int{"0.1": 1, "1": 2, "2.4": 5, "50": 100, "1_000_000_000": 1_000_000_000} {
		dir := folderWith(t, map[string]string{"config.toml": smallest + "[[route]]\nrate_limit.requests_per_second = " + rate + "\n"})
		if got := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}).Route[0].RateLimit.Burst; got != want {
			t.Errorf("burst with %s requests per second = %d, want %d", rate, got, want)
		}
	}
}

func TestShownJSONHasListsAndTablesOfUpstreams(t *testing.T) {
	cfg, _ := loadSeveral(t)
	var b bytes.Buffer
	if err := cfg.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Config struct {
			Upstream map[string]struct {
				URLs        []string
				Proxy       string
				HealthCheck struct{ Expect []int } `json:"health_check"`
			}
			Route []map[string]any
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	one := got.Config.Upstream["one"]
	if !slices.Equal(one.URLs, []string{"https://10.0.0.1", "https://10.0.0.2:8443"}) || one.Proxy != "http://bill%20ing@proxy.corp:3128" || !slices.Equal(one.HealthCheck.Expect, []int{200, 401}) {
		t.Errorf("JSON has %+v", one)
	}
	for i, has := range []bool{true, true, false, false} {
		if _, shown := got.Config.Route[i]["rate_limit"]; shown != has {
			t.Errorf("route %d shows a rate_limit: %v, want %v", i+1, shown, has)
		}
	}
}

func TestFlagReplacesAllPlaces(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest[:strings.Index(smallest, "url =")] + "urls = [\"https://a.example.net\", \"https://b.example.net\"]\n"})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{Overrides: []Override{{"--url", "upstream.*.url", []string{"https://other.example.net"}}}})
	if u := cfg.Upstream["default"]; u.Target() != "https://other.example.net" || len(u.URLs) != 0 {
		t.Errorf("Target() = %s, urls = %v", u.Target(), u.URLs)
	}
	if at := cfg.Origin("upstream.default.urls"); !at.IsDefault() {
		t.Errorf("urls still come from %v", at)
	}
}

func TestSharedStores(t *testing.T) {
	tests := []struct {
		url  string
		want string // in the fact or the hint; "" for none
	}{
		{url: "redis://127.0.0.1:6379/0"},
		{url: "redis://redis.example.net"},
		{url: "redis://redis.example.net/"},
		{url: "rediss://user@[::1]:6380/15"},
		{url: "unix:///run/redis/redis.sock"},
		{url: "unix://user@/run/redis/redis.sock?db=7"},
		{url: "redis://:SECRET@127.0.0.1/0", want: "has a password"},
		{url: "redis://user:SECRET@127.0.0.1", want: "has a password"},
		{url: "redis://user:SEC/RET@127.0.0.1", want: "has a password"},
		{url: "user:SECRET@redis.example.net", want: "shared_password_file"},
		{url: "unix://user:SECRET@/run/redis.sock", want: "has a password"},
		{url: "redis://@127.0.0.1", want: "has a user name that cannot be sent"},
		{url: "redis://us%00er@127.0.0.1", want: "has a user name that cannot be sent"},
		{url: "http://127.0.0.1:6379", want: "does not begin with redis://"},
		{url: "127.0.0.1:6379", want: "does not begin with redis://"},
		{url: "redis://", want: `"" is not a host`},
		{url: "redis://redis.example.net:0", want: "is not a host"},
		{url: "redis://redis.example.net/first", want: `write "redis://redis.example.net/0"`},
		{url: "redis://redis.example.net/01", want: "is not the number of a database"},
		{url: "redis://redis.example.net/0?password=SECRET", want: "has a query"},
		{url: "unix://redis.sock", want: `"redis.sock" is not an absolute path`},
		{url: "unix:/run/redis.sock", want: `"unix:///run/redis/redis.sock"`},
		{url: "unix:///run/redis.sock?password=SECRET", want: "has a query that is not"},
		{url: "unix:///run/redis.sock?db=", want: "has a query that is not"},
		{url: "unix:///run/re%64is.sock", want: "has a character"},
		{url: "unix:///run/", want: "a socket is no folder"},
		{url: "unix:///" + strings.Repeat("x", 120), want: "takes at most 107"},
	}
	for _, tt := range tests {
		fact, hint := checkShared(tt.url)
		got := fact + "; " + hint
		switch {
		case tt.want == "" && fact != "":
			t.Errorf("checkShared(%q) = %s; want nothing", tt.url, got)
		case !strings.Contains(got, tt.want):
			t.Errorf("checkShared(%q) = %s; want %s", tt.url, got, tt.want)
		case strings.Contains(got, "SECRET"):
			t.Errorf("checkShared(%q) quotes the secret: %s", tt.url, got)
		}
	}
}
