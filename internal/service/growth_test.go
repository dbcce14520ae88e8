package service

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// What n upstreams with ten times the routes take, in bytes that are allocated on the way. Bytes are no time, but what looks at
// everything for each of its parts gives itself away by them, and they are the same on a busy machine.
type cost struct{ load, check, build, rebuild, scrape uint64 }

func costOf(t *testing.T, n int) (c cost) {
	t.Helper()
	file := large(t, n)
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	var (
		cfg         *config.Config
		first, next *snapshot.Snapshot
		err         error
		m           = metrics.New(metrics.Options{Faults: faults()})
		w           = httptest.NewRecorder()
	)
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c.load = allocated(func() { cfg, err = config.Load(file, config.Options{}) })
	must()
	c.check = allocated(func() { _, err = Check(context.Background(), cfg, nil, nil) })
	must()
	c.build = allocated(func() { first, err = snapshot.Build(context.Background(), cfg, nil, m) })
	must()
	m.Publish(first.Publication())
	c.rebuild = allocated(func() { next, err = snapshot.Build(context.Background(), cfg, first, m) })
	must()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	c.scrape = uint64(w.Body.Len())
	first.Retire(next)
	next.Retire(nil)
	return c
}

// large writes a configuration with n upstreams, each with an identity, a bundle and ten routes of its own.
func large(t *testing.T, n int) string {
	t.Helper()
	folder := t.TempDir()
	ca, err := demo.NewAuthority(demo.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Client("caller")
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for i := range n {
		for name, content := range map[string][]byte{"crt": client.ChainPEM(), "key": key, "ca": ca.PEM()} {
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.%s", i, name)), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&b, "[identity.i%[1]d]\ncertificate = \"%[1]d.crt\"\nkey = \"%[1]d.key\"\n[trust.t%[1]d]\nca = \"%[1]d.ca\"\n"+
			"[upstream.u%[1]d]\nurl = \"https://127.0.0.1:9\"\nserver_name = \"u%[1]d.example.net\"\nidentity = \"i%[1]d\"\ntrust = \"t%[1]d\"\n", i)
	}
	for i := range 10 * n {
		fmt.Fprintf(&b, "[[route]]\npath_prefix = \"/u%d/%d\"\nupstream = \"u%d\"\n", i/10, i%10, i/10)
	}
	file := filepath.Join(folder, "config.toml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestALargeConfigurationCostsInProportion(t *testing.T) {
	const small, times = 60, 5
	one, many := costOf(t, small), costOf(t, small*times)
	for _, part := range []struct {
		name      string
		one, many uint64
	}{
		{"loading", one.load, many.load}, {"checking", one.check, many.check}, {"building", one.build, many.build},
		{"building after another", one.rebuild, many.rebuild}, {"a scrape", one.scrape, many.scrape},
	} {
		if part.many > part.one*times*3/2 {
			t.Errorf("%s: %d bytes with %d upstreams, %d with %d; that is more than in proportion",
				part.name, part.one, small, part.many, small*times)
		}
	}
}
