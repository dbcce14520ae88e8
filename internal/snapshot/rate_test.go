package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
)

// spend takes n tokens that have to be there.
func spend(t *testing.T, r *Rate, key string, n int) {
	t.Helper()
	for i := range n {
		if _, ok := r.Admit(time.Now(), []byte(key)); !ok {
			t.Fatalf("%s: token %d of %d for %q was refused", r.Setting, i+1, n, key)
		}
	}
}

func refused(t *testing.T, r *Rate, key string) {
	t.Helper()
	if wait, ok := r.Admit(time.Now(), []byte(key)); ok || wait <= 0 {
		t.Errorf("%s: Admit(%q) = %v, %v; want a refusal with a time", r.Setting, key, wait, ok)
	}
}

const slow = "requests_per_second = 0.001\n"

func TestRateIsCountedByItsKey(t *testing.T) {
	for name, c := range map[string]struct {
		key       string
		by        RateKey
		header    string
		keys      float64 // told apart after two
		alsoOther bool    // another caller has tokens of its own
	}{
		"all":        {"all", RateAll, "", 0, false},
		"by address": {"ip", RateIP, "", 2, true},
		"by user":    {"user", RateUser, "", 2, true},
		"by unit":    {"unit", RateUnit, "", 2, true},
		"by a field": {"header:X-Key", RateHeader, "X-Key", 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			r := s.build(t, s.one()+"[rate_limit]\n"+slow+"burst = 3\nkey = \""+c.key+"\"\n", nil).Limits.Rate
			if r.By != c.by || r.Header != c.header || r.Key != c.key || r.ByDefault || r.Setting != "rate_limit" {
				t.Errorf("limit = %+v", r)
			}
			spend(t, r, "a", 3)
			refused(t, r, "a")
			if _, ok := r.Admit(time.Now(), []byte("b")); ok != c.alsoOther {
				t.Errorf("Admit of another = %v, want %v", ok, c.alsoOther)
			}
			if used, _ := r.Keys(); used != c.keys {
				t.Errorf("%v keys are told apart, want %v", used, c.keys)
			}
		})
	}
}

func TestRoutesHaveRatesOfTheirOwn(t *testing.T) {
	s := newSite(t)
	text := func(before, burst string) string {
		return s.one() + before + "[[route]]\npath_prefix = \"/bank\"\nupstream = \"default\"\nrate_limit = { requests_per_second = 0.001, burst = " +
			burst + ", key = \"ip\" }\n[[route]]\nupstream = \"default\"\n"
	}
	var store Store
	first := s.build(t, text("", "3"), nil)
	store.Publish(first)
	bank := first.Routes[0].Rate
	if bank == nil || bank.By != RateIP || bank.Setting != "route[1].rate_limit" || first.Routes[1].Rate != nil {
		t.Fatalf("rates = %+v, %+v; want one by address, and none", bank, first.Routes[1].Rate)
	}
	spend(t, bank, "10.0.0.1", 3)
	refused(t, bank, "10.0.0.1")
	spend(t, bank, "10.0.0.2", 1)
	// Another route before it, and a larger burst: what was used is used all the same.
	second := s.build(t, text("[[route]]\npath_prefix = \"/a\"\nupstream = \"default\"\n", "4"), first)
	store.Publish(second)
	again := second.Routes[1].Rate
	if again.Setting != "route[2].rate_limit" {
		t.Errorf("Setting = %q", again.Setting)
	}
	spend(t, again, "10.0.0.1", 1)
	refused(t, again, "10.0.0.1")
	spend(t, again, "10.0.0.2", 3)
	refused(t, bank, "10.0.0.2") // whoever still has the first generation
	// Another key is another limit.
	third := s.build(t, strings.ReplaceAll(text("", "3"), `"ip"`, `"header:X-Key"`), second)
	spend(t, third.Routes[0].Rate, "10.0.0.1", 3)

	s.metrics.Publish(third.Publication())
	var keys []string
	for _, series := range s.scrape("mtls_proxy_rate_limited_total") {
		keys = append(keys, strings.TrimPrefix(series, "mtls_proxy_rate_limited_total"))
	}
	if got := strings.Join(keys, " "); !strings.Contains(got, `{key="header:X-Key"} 0`) || !strings.Contains(got, `{key="all"} 0`) {
		t.Errorf("series = %s", got)
	}
}

func TestNoRateAdmitsEverything(t *testing.T) {
	var r *Rate
	if wait, ok := r.Admit(time.Now(), nil); wait != 0 || !ok {
		t.Errorf("Admit of nil = %v, %v; want 0, true", wait, ok)
	}
	if used, limit := r.Level(); used != 0 || limit != 0 {
		t.Errorf("Level() = %v, %v", used, limit)
	}
	if used, limit := r.Keys(); used != 0 || limit != 0 {
		t.Errorf("Keys() = %v, %v", used, limit)
	}
	if _, ok := r.Shared(); ok {
		t.Error("Shared() = true")
	}
	s := newSite(t)
	off := s.build(t, s.one()+"[rate_limit]\nrequests_per_second = 0\n", nil).Limits.Rate
	spend(t, off, "", 1000)
}

func TestASharedRateLivesAsLongAsItIsConfigured(t *testing.T) {
	s := newSite(t)
	if err := os.WriteFile(filepath.Join(s.dir, "password"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := func(more string) string { // nobody listens there, so our own buckets count
		return s.one() + "[rate_limit]\n" + slow + "burst = 3\nshared = \"redis://127.0.0.1:1/0\"\nshared_password_file = \"password\"\n" + more
	}
	var store Store
	first := s.build(t, text(""), nil)
	store.Publish(first)
	told := make(chan error, 1)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		first.Run(t.Context(), nil, Told{Store: func(err error) { told <- err }})
	}()
	r := first.Limits.Rate
	spend(t, r, "", 3)
	refused(t, r, "anything")
	if err := <-told; err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("told %v, want why the store is away", err)
	}
	if stats, ok := r.Shared(); !ok || !stats.Away {
		t.Errorf("Shared() = %+v, %v; want one that is away", stats, ok)
	}
	second := s.build(t, text("")+"[log]\naccess = \"all\"\n", first)
	store.Publish(second).Retire(second)
	refused(t, second.Limits.Rate, "")
	if second.budgets[0] != first.budgets[0] {
		t.Error("the shared budget is another one, though nothing about it changed")
	}
	third := s.build(t, text("shared_failure = \"deny\"\n"), second)
	if third.budgets[0] == second.budgets[0] || third.Limits.Rate.budget.id.failure != admission.Deny {
		t.Error("the shared budget is the old one, though its failure is another")
	}
	store.Publish(third).Retire(third)
	third.Retire(nil)
	select {
	case <-ran:
	case <-time.After(20 * time.Second):
		t.Fatal("Run of the first does not end")
	}
}

func TestBuildReportsAStoreThatIsNone(t *testing.T) {
	s := newSite(t)
	cfg := s.load(t, s.one())
	cfg.RateLimit.Shared = "http://127.0.0.1" // the file would have been refused
	if next, err := Build(context.Background(), cfg, nil, s.metrics); err == nil || next != nil {
		t.Errorf("Build = %v, %v; want an error", next, err)
	}
}

func TestSharesStayWithTheListener(t *testing.T) {
	s := newSite(t)
	text := func(limit string) string {
		return s.one() + "[listener.http]\nmax_connections_per_caller = " + limit + "\n"
	}
	var store Store
	first := s.build(t, text("0"), nil)
	store.Publish(first)
	key := []byte("1000")
	shares := first.Listener("http").Shares
	for range 3 {
		if !shares.Enter(key) {
			t.Fatal("refused without a limit")
		}
	}
	second := s.build(t, text("2"), first)
	if shares.Limit() != 0 {
		t.Errorf("limit = %d before the second was published, want 0", shares.Limit())
	}
	store.Publish(second)
	now := second.Listener("http").Shares
	if now != shares || now.Limit() != 2 || now.Enter(key) {
		t.Errorf("shares = %p for %d, want %p for 2, which refuse a fourth", now, now.Limit(), shares)
	}
	for range 3 {
		shares.Leave(key)
	}
	if now.Len() != 0 {
		t.Errorf("%d callers hold something, want none", now.Len())
	}
}

func TestAdmitDoesNotAllocate(t *testing.T) {
	s := newSite(t)
	for _, key := range []string{"all", "ip"} {
		r := s.build(t, s.one()+"[rate_limit]\nkey = \""+key+"\"\n", nil).Limits.Rate
		caller := []byte("10.0.0.1")
		if n := testing.AllocsPerRun(500, func() { r.Admit(time.Now(), caller) }); n != 0 {
			t.Errorf("key %q: %v allocations, want 0", key, n)
		}
	}
}
