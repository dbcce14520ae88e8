package snapshot

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// site is a folder with a configuration, and an upstream to lead to.
type site struct {
	dir       string
	authority *demo.Authority
	server    *demo.Upstream
	metrics   *metrics.Metrics
}

func newSite(t *testing.T) *site {
	t.Helper()
	a, err := demo.NewAuthority(demo.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: t.TempDir(), authority: a, metrics: metrics.New(metrics.Options{})}
	if s.server, err = demo.NewUpstream(demo.UpstreamOptions{Authority: a}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.server.Close() })
	if _, err := a.Write(s.dir, "ca"); err != nil {
		t.Fatal(err)
	}
	s.renew(t, "client")
	return s
}

// renew writes a new certificate and key.
func (s *site) renew(t *testing.T, name string) {
	t.Helper()
	c, err := s.authority.Client("test")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Write(s.dir, name); err != nil {
		t.Fatal(err)
	}
}

// credentials are an identity and a trust bundle, both "default".
const credentials = `
[identity.default]
certificate = "client.crt"
key = "client.key"
[trust.default]
ca = "ca.crt"
`

// one has one upstream, "default", that is the site's; what comes behind it is in its table.
func (s *site) one() string { return credentials + "[upstream.default]\nurl = \"" + s.url() + "\"\n" }

func (s *site) url() string { return s.server.URL() }

// load loads the configuration that text is.
func (s *site) load(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(s.dir, "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// build loads text and builds what must succeed.
func (s *site) build(t *testing.T, text string, prev *Snapshot) *Snapshot {
	t.Helper()
	next, err := Build(context.Background(), s.load(t, text), prev, s.metrics)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	t.Cleanup(func() { next.Retire(nil) })
	return next
}

// find returns the upstream of that name.
func find(t *testing.T, s *Snapshot, name string) *upstream.Upstream {
	t.Helper()
	for _, u := range s.Upstreams() {
		if u.Name() == name {
			return u
		}
	}
	t.Fatalf("no upstream %q", name)
	return nil
}

// only returns the endpoint of u.
func only(t *testing.T, u *upstream.Upstream) *upstream.Endpoint {
	t.Helper()
	try, f := u.Pick(t.Context(), time.Now(), new(upstream.Tried))
	if f != nil {
		t.Fatal(f)
	}
	try.End(time.Now(), upstream.Abandoned)
	return try.Endpoint
}

// fill puts a connection into the pool of u.
func fill(t *testing.T, u *upstream.Upstream) *upstream.Conn {
	t.Helper()
	c, err := only(t, u).Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c.Keep(time.Now(), -1)
	return c
}

// scrape returns the series that begin with name and are shown.
func (s *site) scrape(name string) (series []string) {
	rec := httptest.NewRecorder()
	s.metrics.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.SplitSeq(rec.Body.String(), "\n") {
		if strings.HasPrefix(line, name+"{") {
			series = append(series, line)
		}
	}
	return series
}
