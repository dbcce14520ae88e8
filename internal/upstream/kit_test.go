package upstream

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// world is an Upstream of ours with the server that it leads to.
type world struct {
	authority *demo.Authority
	o         demo.UpstreamOptions // of the server, before build
	client    *demo.Issued         // nil: one by the authority
	options   Options              // of ours; what build finds set stays

	server  *demo.Upstream
	all     *Upstream
	up      *Endpoint // the one of all
	metrics *metrics.Metrics
}

func newAuthority(t testing.TB) *demo.Authority {
	t.Helper()
	a, err := demo.NewAuthority(demo.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newWorld(t testing.TB) *world {
	t.Helper()
	a := newAuthority(t)
	return &world{authority: a, o: demo.UpstreamOptions{Authority: a}}
}

func issue(t testing.TB, a *demo.Authority, r demo.Request) *demo.Issued {
	t.Helper()
	i, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// build starts the server and makes the Upstream.
func (w *world) build(t testing.TB) *world {
	t.Helper()
	server, err := demo.NewUpstream(w.o)
	if err != nil {
		t.Fatal(err)
	}
	w.server = server
	t.Cleanup(func() { server.Close() })
	return w.buildAt(t, server.Addr())
}

// buildAt makes the Upstream for a server that is there already.
func (w *world) buildAt(t testing.TB, address string) *world {
	t.Helper()
	dir := t.TempDir()
	if w.client == nil {
		w.client = issue(t, w.authority, demo.Request{CommonName: "test"})
	}
	cert, key, err := w.client.Write(dir, "client")
	if err != nil {
		t.Fatal(err)
	}
	o := &w.options
	if o.Identity, err = identity.Load(identity.Source{Name: "test", Certificate: cert, Key: key}); err != nil {
		t.Fatal(err)
	}
	if o.Bundle == nil {
		o.Bundle = bundle(t, w.authority)
	}
	if o.Pool == (Pool{}) {
		o.Pool.MaxIdle = 10
	}
	if o.Timeout.TLSHandshake == 0 {
		o.Timeout.TLSHandshake = patience
	}
	o.Timeout.Connect = patience
	w.metrics = metrics.New(metrics.Options{})
	o.Name, o.URL, o.Servers = "test", "https://"+address, []Server{{Address: address, ServerName: "localhost"}}
	o.Metrics, o.Buffers = w.metrics.Upstream("test"), conn.NewBuffers()
	w.all = New(*o)
	try, f := w.all.Pick(t.Context(), time.Now(), new(Tried))
	if f != nil {
		t.Fatal(f)
	}
	try.End(time.Now(), Abandoned)
	w.up = try.Endpoint
	t.Cleanup(func() {
		w.all.Retire(time.Time{})
		if idle, active := w.all.Stats(); idle != 0 || active != 0 {
			t.Errorf("in the end %d connections are idle and %d active, want none", idle, active)
		}
	})
	return w
}

func bundle(t testing.TB, a *demo.Authority) *trust.Bundle {
	t.Helper()
	ca, err := a.Write(t.TempDir(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	b, err := trust.Load(trust.Source{Name: "test", CA: []string{ca}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dial makes a connection that must succeed.
func (w *world) dial(t testing.TB) *Conn {
	t.Helper()
	c, err := w.up.Dial(context.Background())
	if err != nil {
		t.Fatalf("Dial: %v (server: %v)", err, w.server.HandshakeError())
	}
	return c
}

// refused dials, and if that succeeds goes on to the first read. It returns the fault that came of it.
func (w *world) refused(t testing.TB) *fault.Fault {
	t.Helper()
	c, err := w.up.Dial(context.Background())
	if err != nil {
		f, ok := err.(*fault.Fault)
		if !ok {
			t.Fatalf("Dial = %T %v, want a *fault.Fault", err, err)
		}
		return f
	}
	defer c.Close(metrics.ClosedFault)
	_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	n, err := c.Read(make([]byte, 1))
	if err == nil {
		t.Fatalf("Dial and Read succeeded with %d bytes, want a fault", n)
	}
	return c.Fault(fault.PhaseReceive, err)
}

// get carries a request and returns the answer's body.
func get(t testing.TB, c *Conn) []byte {
	t.Helper()
	if _, err := c.Write([]byte("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("read the response: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the body: %v", err)
	}
	return body
}

// echo is get with the server's view of it.
func echo(t testing.TB, c *Conn) (s demo.Seen) {
	t.Helper()
	if err := json.Unmarshal(get(t, c), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// counter reads a counter of the Upstream as a scrape shows it; labels are those after upstream or before it.
func (w *world) counter(t testing.TB, name string, labels ...string) int {
	t.Helper()
	rec := httptest.NewRecorder()
	w.metrics.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.SplitSeq(rec.Body.String(), "\n") {
		rest, ok := strings.CutPrefix(line, name+"{")
		fits := ok && strings.Contains(rest, `upstream="test"`)
		for _, l := range labels {
			fits = fits && strings.Contains(rest, l)
		}
		if fits {
			_, value, _ := strings.Cut(rest, "} ")
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no series %s%v", name, labels)
	return 0
}

func (w *world) closed(t testing.TB, why metrics.CloseReason) int {
	t.Helper()
	return w.counter(t, "mtls_proxy_upstream_connections_closed_total", `reason="`+why.String()+`"`)
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); <-time.After(100 * time.Microsecond) {
		if time.Now().After(limit) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// listen has serve speak with whoever connects, without TLS, and returns the address.
func listen(t testing.TB, serve func(c net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// silence reads until the other side hangs up, and says nothing.
func silence(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
