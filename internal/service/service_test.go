package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// site is a folder with certificates, and an upstream that demands them.
type site struct {
	dir       string
	authority *demo.Authority
	upstream  *demo.Upstream
	serial    string // of the client certificate in dir
	log       lockedBuffer
}

func newSite(t *testing.T) *site {
	t.Helper()
	authority, err := demo.NewAuthority(demo.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	up, err := demo.NewUpstream(demo.UpstreamOptions{Authority: authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	s := &site{dir: t.TempDir(), authority: authority, upstream: up}
	if _, err := authority.Write(s.dir, "ca"); err != nil {
		t.Fatal(err)
	}
	s.renew(t)
	return s
}

func (s *site) renew(t *testing.T) {
	t.Helper()
	issued, err := s.authority.Client("billing")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := issued.Write(s.dir, "client"); err != nil {
		t.Fatal(err)
	}
	s.serial = issued.Serial()
}

func (s *site) socket() string { return filepath.Join(s.dir, "admin.sock") }

// load is what flags on the command line would give.
func (s *site) load([]string) (*config.Config, error) {
	set := func(key, value string) config.Override {
		return config.Override{Flag: "--test", Key: key, Values: []string{value}}
	}
	return config.Load("", config.Options{Overrides: []config.Override{
		set("upstream.*.url", s.upstream.URL()),
		set("identity.*.certificate", filepath.Join(s.dir, "client.crt")),
		set("identity.*.key", filepath.Join(s.dir, "client.key")),
		set("trust.*.ca", filepath.Join(s.dir, "ca.crt")),
		set("listener.*.address", "127.0.0.1:0"),
		set("admin.address", ""),
		set("admin.socket", s.socket()),
		set("log.level", "debug"),
		set("log.format", "text"),
	}})
}

// run starts the service, hands its status to use once it serves, and stops it
// afterwards.
func (s *site) run(t *testing.T, use func(Status)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan Status, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Version: "v0", Load: s.load, Stderr: &s.log, Ready: func(st Status) { ready <- st }})
	}()
	select {
	case st := <-ready:
		use(st)
	case err := <-ended:
		t.Fatalf("Run = %v before it was ready\n%s", err, s.log.String())
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v after it was asked to stop, want nil\n%s", err, s.log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *lockedBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestRunServesUntilItIsAskedToStop(t *testing.T) {
	s := newSite(t)
	s.run(t, func(st Status) {
		if st.State != Serving || st.Generation != 1 || len(st.Listeners) != 1 || len(st.Identities) != 1 {
			t.Fatalf("status = %+v", st)
		}
		if got := st.Identities[0].Serial; got != s.serial {
			t.Errorf("serial = %s, want %s", got, s.serial)
		}
		if status, body := get(t, "http://"+st.Listeners[0].Addresses[0]+"/"); status != http.StatusOK || !strings.Contains(body, s.serial) {
			t.Errorf("answer = %d %q, want 200 with serial %s", status, body, s.serial)
		}
	})
	for _, event := range []string{"started", "draining", "stopped"} {
		if !strings.Contains(s.log.String(), event) {
			t.Errorf("the log does not say %q:\n%s", event, s.log.String())
		}
	}
	if _, err := os.Stat(s.socket()); err == nil {
		t.Error("the control socket is still there")
	}
}

func TestReloadThroughTheSocketPublishes(t *testing.T) {
	s := newSite(t)
	s.run(t, func(st Status) {
		s.renew(t)
		client := &admin.Client{Socket: s.socket()}
		res, err := client.Reload(t.Context())
		if err != nil || !res.OK || res.Generation != 2 {
			t.Fatalf("Reload = %+v, %v; want generation 2", res, err)
		}
		if _, body := get(t, "http://"+st.Listeners[0].Addresses[0]+"/"); !strings.Contains(body, s.serial) {
			t.Errorf("answer = %q, want the new serial %s", body, s.serial)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "client.key"), []byte("no key"), 0o600); err != nil {
			t.Fatal(err)
		}
		res, err = client.Reload(t.Context())
		if err != nil || res.OK || res.Generation != 2 || !strings.Contains(strings.Join(res.Problems, "\n"), "client.key") {
			t.Fatalf("Reload of a broken key = %+v, %v; want a problem with client.key", res, err)
		}
		if status, _ := get(t, "http://"+st.Listeners[0].Addresses[0]+"/"); status != http.StatusOK {
			t.Errorf("status %d after a refused reload, want 200", status)
		}
	})
}

func TestRunTellsABadConfigurationApart(t *testing.T) {
	s := newSite(t)
	if err := os.Remove(filepath.Join(s.dir, "client.key")); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{Load: s.load, Stderr: &s.log})
	if bad := (BadConfiguration{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "client.key") {
		t.Errorf("Run without a key = %v, want a BadConfiguration that names client.key", err)
	}
}

func TestCheckReportsEveryFile(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"client.key", "ca.crt"} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := s.load(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Check(t.Context(), cfg, nil, nil)
	if found, ok := errors.AsType[config.Problems](err); !ok || len(found) != 2 ||
		found[0].Key != "identity.default.key" || found[1].Key != "trust.default.ca" || found[0].Origin.Flag != "--test" {
		t.Errorf("Check = %v, want a problem with identity.default.key and one with trust.default.ca", err)
	}
}

// Certificates that never expire are valid to the end of the year 9999.
func TestDaysLeftOfWhatNeverExpires(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	if got := daysLeft(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), now); got != 2912108 {
		t.Errorf("daysLeft = %d", got)
	}
}

func TestDaysLeft(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		left time.Duration
		want int
	}{
		{"expired a moment ago", -time.Second, -1},
		{"expired a day ago", -25 * time.Hour, -2},
		{"the last day", 23 * time.Hour, 0},
		{"a day and a bit", 25 * time.Hour, 1},
		{"a year", 365 * 24 * time.Hour, 365},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := daysLeft(now.Add(tt.left), now); got != tt.want {
				t.Errorf("daysLeft = %d, want %d", got, tt.want)
			}
		})
	}
}
