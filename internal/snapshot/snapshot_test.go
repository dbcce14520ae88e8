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

	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

func TestStorePublishesOneAfterTheOther(t *testing.T) {
	s := newSite(t)
	var store Store
	if got := store.Current(); got != nil {
		t.Errorf("Current() = %p before the first, want nil", got)
	}
	first := s.build(t, s.one(), nil)
	if old := store.Publish(first); old != nil || store.Current() != first {
		t.Errorf("Publish = %p, Current() = %p; want nil, %p", old, store.Current(), first)
	}
	second := s.build(t, s.one(), first)
	if old := store.Publish(second); old != first || store.Current() != second {
		t.Errorf("Publish = %p, Current() = %p; want %p, %p", old, store.Current(), first, second)
	}
	if first.Generation != 1 || second.Generation != 2 {
		t.Errorf("generations = %d, %d; want 1, 2", first.Generation, second.Generation)
	}
	if first.Buffers() != second.Buffers() {
		t.Error("the second generation has buffers of its own")
	}
}

// A connection to a listener that a generation removes is served by the generation before, which is released with the next one.
func TestStoreServesListenersThatLeave(t *testing.T) {
	s := newSite(t)
	var store Store
	if got := store.Serving("http"); got != nil {
		t.Errorf("Serving() = %p before the first, want nil", got)
	}
	both := s.build(t, s.one()+"[listener.http]\n[listener.old]\naddress = \"127.0.0.1:9\"\n", nil)
	one := s.build(t, s.one()+"[listener.http]\n", both)
	again := s.build(t, s.one()+"[listener.http]\n", one)
	for _, step := range []struct{ next, http, old, other *Snapshot }{
		{both, both, both, nil}, {one, one, both, nil}, {again, again, nil, nil},
	} {
		store.Publish(step.next)
		for name, want := range map[string]*Snapshot{"http": step.http, "old": step.old, "other": step.other} {
			if got := store.Serving(name); got != want {
				t.Errorf("generation %d: Serving(%q) = %p, want %p", step.next.Generation, name, got, want)
			}
		}
	}
}

func TestWhatIsTheSameIsTakenOver(t *testing.T) {
	s := newSite(t)
	first := s.build(t, s.one(), nil)
	kept := fill(t, find(t, first, "default"))
	second := s.build(t, s.one()+"[log]\naccess = \"all\"\n", first)
	if got, want := find(t, second, "default"), find(t, first, "default"); got != want {
		t.Errorf("upstream = %p, want %p", got, want)
	}
	if !slices.Equal(second.Identities, first.Identities) || !slices.Equal(second.Bundles, first.Bundles) {
		t.Error("identities or bundles are not the same pointers")
	}
	first.Retire(second)
	c := only(t, find(t, second, "default")).Take(time.Now())
	if c != kept {
		t.Fatalf("Take = %p, want %p from the generation before", c, kept)
	}
	c.Close(metrics.ClosedByResponse)
}

func TestWhatChangedIsNew(t *testing.T) {
	two := func(s *site) string {
		return s.one() + "[upstream.other]\nurl = \"" + s.url() + "\"\nidentity = \"other\"\ntrust = \"other\"\n" +
			"[identity.other]\ncertificate = \"other.crt\"\nkey = \"other.key\"\n[trust.other]\nca = \"other-ca.crt\"\n" +
			"[[route]]\nupstream = \"default\"\n[[route]]\npath_prefix = \"/other\"\nupstream = \"other\"\n"
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, s *site)
		more   string
	}{
		"a renewed certificate": {change: func(t *testing.T, s *site) { s.renew(t, "other") }},
		"another bundle": {change: func(t *testing.T, s *site) {
			var all []byte
			for _, name := range []string{"ca.crt", "more.crt"} {
				b, err := os.ReadFile(filepath.Join(s.dir, name))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, b...)
			}
			if err := os.WriteFile(filepath.Join(s.dir, "other-ca.crt"), all, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		"another timeout":       {more: "[upstream.other.timeout]\nrequest = \"7s\"\n"},
		"another way to choose": {more: "[upstream.other]\nbalance = \"first\"\n"},
		"another retry":         {more: "[upstream.other.retry]\non = [\"connect\", \"503\"]\n"},
		"another breaker":       {more: "[upstream.other.circuit_breaker]\nprobes = 7\n"},
		"a health check":        {more: "[upstream.other.health_check]\npath = \"/healthz\"\n"},
		"a proxy":               {more: "[upstream.other]\nproxy = \"http://127.0.0.1:1\"\n"},
		"another host":          {more: "[upstream.other]\nhost = \"preserve\"\n"},
		"another bound":         {more: "[upstream.other.pool]\nmax_idle = 7\n"},
		"another TLS version":   {more: "[upstream.other]\nmin_tls_version = \"1.3\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.renew(t, "other")
			for _, name := range []string{"other-ca", "more"} {
				a := s.authority
				if name == "more" {
					a = newSite(t).authority
				}
				if _, err := a.Write(s.dir, name); err != nil {
					t.Fatal(err)
				}
			}
			first := s.build(t, two(s), nil)
			var store Store
			store.Publish(first)
			fill(t, find(t, first, "default"))
			fill(t, find(t, first, "other"))
			if c.change != nil {
				c.change(t, s)
			}
			text := two(s)
			if strings.Contains(c.more, "[upstream.other]") { // extend the table that is there
				text = strings.Replace(text, "[upstream.other]\n", c.more, 1)
			} else {
				text += c.more
			}
			second := s.build(t, text, first)
			if got, want := find(t, second, "default"), find(t, first, "default"); got != want {
				t.Errorf("the upstream that did not change = %p, want %p", got, want)
			}
			was, is := find(t, first, "other"), find(t, second, "other")
			if was == is {
				t.Fatal("the upstream that changed was taken over")
			}
			if idle, _ := was.Stats(); idle != 1 {
				t.Errorf("%d idle connections before Retire, want 1", idle)
			}
			store.Publish(second).Retire(second)
			if idle, _ := was.Stats(); idle != 0 {
				t.Errorf("%d idle connections after Retire, want 0", idle)
			}
			if idle, _ := find(t, second, "default").Stats(); idle != 1 {
				t.Errorf("the upstream that did not change has %d idle connections, want 1", idle)
			}
			now := time.Now()
			if was.Overdue(now) || !was.Overdue(now.Add(second.Drain)) {
				t.Errorf("its exchanges do not end %v after Retire", second.Drain)
			}
			if is.Overdue(now.Add(second.Drain)) || is.Metrics() != was.Metrics() {
				t.Error("the new upstream is overdue, or counts elsewhere")
			}
		})
	}
}

func TestRetireForGoodBoundsNothing(t *testing.T) {
	s := newSite(t)
	snap := s.build(t, s.one(), nil)
	u := find(t, snap, "default")
	fill(t, u)
	snap.Retire(nil)
	if idle, _ := u.Stats(); idle != 0 || u.Overdue(time.Now().Add(1000*time.Hour)) {
		t.Errorf("%d idle, Overdue() = %v; want 0, false", idle, true)
	}
}

func TestLimitsChangeWhenPublished(t *testing.T) {
	s := newSite(t)
	limits := func(connections, requests, burst string) string {
		return s.one() + "[limits]\nmax_connections = " + connections + "\nmax_concurrent_requests = " + requests +
			"\nqueue_timeout = \"3s\"\n[rate_limit]\nrequests_per_second = 0.001\nburst = " + burst + "\n"
	}
	var store Store
	first := s.build(t, limits("10", "5", "4"), nil)
	store.Publish(first)
	for range 4 {
		first.Limits.Requests.TryEnter()
		first.Limits.Connections.TryEnter()
	}
	first.Limits.Rate.Admit(time.Now(), nil)
	second := s.build(t, limits("3", "2", "2"), first)
	want := func(when string, connections, requests int, burst float64) {
		t.Helper()
		for i, l := range []*Limits{&first.Limits, &second.Limits} {
			_, gotBurst := l.Rate.Level()
			if l.Connections.Limit() != connections || l.Requests.Limit() != requests || gotBurst != burst {
				t.Errorf("%s, generation %d: limits = %d, %d, %v; want %d, %d, %v", when, i+1,
					l.Connections.Limit(), l.Requests.Limit(), gotBurst, connections, requests, burst)
			}
			if l.Connections.InUse() != 4 || l.Requests.InUse() != 4 {
				t.Errorf("%s, generation %d: in use = %d, %d; want 4, 4", when, i+1, l.Connections.InUse(), l.Requests.InUse())
			}
		}
	}
	want("built", 10, 5, 4)
	store.Publish(second)
	want("published", 3, 2, 2)
	for range 4 { // whoever entered by the old generation leaves by either
		first.Limits.Requests.Leave()
		second.Limits.Connections.Leave()
	}
	if n := second.Limits.Requests.InUse(); n != 0 {
		t.Errorf("%d requests are inside, want 0", n)
	}
	if used, _ := second.Limits.Rate.Level(); used > 1.01 {
		t.Errorf("%v tokens are taken, want at most the one", used)
	}
	if first.Limits.QueueTimeout != 3*time.Second || first.Limits.Rate.ByDefault || first.Limits.Rate.Key != "all" || first.Limits.Rate.Setting != "rate_limit" {
		t.Errorf("limits = %+v", first.Limits)
	}
	if l := s.build(t, s.one(), nil).Limits; !l.Rate.ByDefault || l.Connections.Limit() != 1000 || l.Requests.Limit() != 100 || l.HTTP.MaxHead != 64<<10 || l.HTTP.MaxRequestLine != 16<<10 ||
		l.HeaderTimeout != 10*time.Second || l.IdleTimeout != 15*time.Minute {
		t.Errorf("limits by default = %+v", l)
	}
}

func TestBuildReportsEveryBadFile(t *testing.T) {
	s := newSite(t)
	prev := s.build(t, s.one(), nil)
	fill(t, find(t, prev, "default"))
	if err := os.WriteFile(filepath.Join(s.dir, "broken.crt"), []byte("no PEM"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "open.crt"), s.authority.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(s.dir, "open.crt"), 0o666); err != nil {
		t.Fatal(err)
	}
	text := s.one() + `
[identity.a]
certificate = "missing.crt"
key = "missing.key"
[identity.b]
certificate = "broken.crt"
key = "client.key"
[trust.c]
ca = ["missing-ca.crt", "broken.crt"]
[trust.d]
ca = "open.crt"
`
	next, err := Build(context.Background(), s.load(t, text), prev, s.metrics)
	if err == nil || next != nil {
		t.Fatalf("Build = %v, %v; want an error", next, err)
	}
	for _, want := range []string{"missing.crt", `identity "b"`, "missing-ca.crt", "broken.crt", "open.crt"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
	for _, file := range []string{"missing.crt", "missing-ca.crt", "open.crt"} {
		if n := strings.Count(err.Error(), filepath.Join(s.dir, file)+":"); n != 1 {
			t.Errorf("the error names %s %d times, want once:\n%v", file, n, err)
		}
	}
	if idle, _ := find(t, prev, "default").Stats(); idle != 1 {
		t.Errorf("%d idle connections of the generation before, want 1", idle)
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, s.load(t, s.one()), nil, s.metrics); !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v, want %v", err, context.Canceled)
	}
}

func TestPublicationListsWhatCanBeCounted(t *testing.T) {
	s := newSite(t)
	text := s.one() + `
[listener.http]
[listener.second]
address = []
[[route]]
path_prefix = "/both"
upstream = "default"
[[route]]
listener = "second"
path_prefix = "/one"
upstream = "default"
`
	snap := s.build(t, text, nil)
	s.metrics.Publish(snap.Publication())
	var got []string
	for _, series := range s.scrape("mtls_proxy_requests_total") {
		got = append(got, strings.TrimPrefix(series, "mtls_proxy_requests_total"))
	}
	names := []string{snap.Routes[0].Name, snap.Routes[1].Name}
	want := []string{
		`{listener="http",route="-",upstream="-"} 0`,
		`{listener="http",route="` + names[0] + `",upstream="default"} 0`,
		`{listener="second",route="-",upstream="-"} 0`,
		`{listener="second",route="` + names[0] + `",upstream="default"} 0`,
		`{listener="second",route="` + names[1] + `",upstream="default"} 0`,
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("series =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, want := range map[string]int{
		"mtls_proxy_limit": 5, "mtls_proxy_upstream_endpoints": 4, "mtls_proxy_circuit_breaker_state": 3, "mtls_proxy_upstream_connections": 2, "mtls_proxy_certificate_not_after_timestamp_seconds": 2,
	} {
		if got := s.scrape(name); len(got) != want {
			t.Errorf("%s: %d series %v, want %d", name, len(got), got, want)
		}
	}
	// Who is not there can not be counted.
	if e := snap.Listener("http").Exchanges; e[0] == nil || e[1] != nil {
		t.Errorf("exchanges of http = %v, want the first only", e)
	}
	if e := snap.Listener("second").Exchanges; e[0] == nil || e[1] == nil {
		t.Errorf("exchanges of second = %v, want both", e)
	}
	next := s.build(t, s.one(), snap)
	s.metrics.Publish(next.Publication())
	if got := s.scrape("mtls_proxy_requests_total"); len(got) != 2 {
		t.Errorf("after the routes left: %v, want 2 series", got)
	}
}
