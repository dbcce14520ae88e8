package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/connect"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// fleet is an Upstream with several servers.
type fleet struct {
	*world
	servers []*demo.Upstream
	events  chan Event
}

// newFleet starts n servers, each at an IP address that is one of the Options' Servers. change has the last word on the
// Options, and o on each server.
func newFleet(t *testing.T, n int, o func(i int) demo.UpstreamOptions, change func(f *fleet, o *Options)) *fleet {
	t.Helper()
	f := &fleet{world: newWorld(t), events: make(chan Event, maxEvents)}
	for i := range n {
		var so demo.UpstreamOptions
		if o != nil {
			so = o(i)
		}
		so.Authority = f.authority
		s, err := demo.NewUpstream(so)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		f.servers = append(f.servers, s)
		f.options.Servers = append(f.options.Servers, Server{Address: s.Addr(), ServerName: "localhost"})
	}
	f.client = issue(t, f.authority, demo.Request{CommonName: "test"})
	f.options.Bundle = bundle(t, f.authority)
	f.complete(t, change)
	return f
}

// complete makes the Upstream.
func (f *fleet) complete(t *testing.T, change func(f *fleet, o *Options)) {
	t.Helper()
	cert, key, err := f.client.Write(t.TempDir(), "client")
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Load(identity.Source{Name: "test", Certificate: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	f.metrics = metrics.New(metrics.Options{})
	o := &f.options
	o.Name, o.URL, o.Identity = "test", "https://test", id
	o.Metrics, o.Buffers = f.metrics.Upstream("test"), conn.NewBuffers()
	o.Pool.MaxIdle = 10
	o.Timeout = Timeout{Connect: patience, TLSHandshake: patience}
	if change != nil {
		change(f, o)
	}
	f.all = New(*o)
	f.metrics.Publish(&metrics.Publication{Upstreams: []metrics.Pool{{Upstream: o.Metrics, Stats: f.all.Stats, Health: f.all.Health}}})
	t.Cleanup(func() {
		f.all.Retire(time.Time{})
		if idle, active := f.all.Stats(); idle != 0 || active != 0 {
			t.Errorf("in the end %d connections are idle and %d active, want none", idle, active)
		}
		for _, e := range f.all.Endpoints() {
			if e.Outstanding != 0 {
				t.Errorf("in the end %d exchanges use %s, want none", e.Outstanding, e.Address)
			}
		}
	})
}

// run has Run go on until the test is over.
func (f *fleet) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.all.Run(ctx, &Told{Event: func(e Event) { f.events <- e }})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// event waits for the next event, which has to be of that kind.
func (f *fleet) event(t *testing.T, want EventKind) Event {
	t.Helper()
	select {
	case e := <-f.events:
		if e.Kind != want || e.Upstream != "test" || e.At.IsZero() {
			t.Fatalf("event = %+v, want one of kind %d", e, want)
		}
		return e
	case <-time.After(patience):
		t.Fatalf("no event of kind %d", want)
	}
	return Event{}
}

// pick chooses an endpoint, which must succeed, and ends the try as given.
func (f *fleet) pick(t *testing.T, tried *Tried, o Outcome) *Endpoint {
	t.Helper()
	now := time.Now()
	try, fa := f.all.Pick(t.Context(), now, tried)
	if fa != nil {
		t.Fatalf("Pick: %v", fa)
	}
	try.End(now, o)
	return try.Endpoint
}

// state returns how an endpoint is.
func (f *fleet) state(t *testing.T, address string) EndpointStatus {
	t.Helper()
	for _, s := range f.all.Endpoints() {
		if s.Address == address {
			return s
		}
	}
	t.Fatalf("no endpoint %s among %+v", address, f.all.Endpoints())
	return EndpointStatus{}
}

// zone is a DNS that knows what is written in it.
type zone struct {
	mu    sync.Mutex
	addrs map[string]string // name -> addresses, apart by spaces
	srv   map[string][]*net.SRV
	err   error // of every lookup
}

func (z *zone) set(name, addrs string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[name] = addrs
}

func (z *zone) LookupNetIP(ctx context.Context, _, host string) (all []netip.Addr, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil {
		return nil, z.err
	}
	text, ok := z.addrs[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	for _, a := range strings.Fields(text) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all, nil
}

func (z *zone) LookupSRV(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.srv[name] == nil {
		return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return name, z.srv[name], nil
}

func proxyAt(t *testing.T, url, password string) *connect.Proxy {
	t.Helper()
	p, err := connect.New(url, password)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tunnels is an HTTP proxy that knows CONNECT alone.
type tunnels struct {
	address string
	status  int    // 200
	to      string // where all tunnels lead

	mu   sync.Mutex
	seen []*http.Request
}

func newTunnels(t *testing.T, status int, to string) *tunnels {
	t.Helper()
	p := &tunnels{status: status, to: to}
	p.address = listen(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.seen = append(p.seen, req)
		p.mu.Unlock()
		if p.status == 0 {
			silence(c)
			return
		}
		if p.status != 200 {
			_, _ = io.WriteString(c, fmt.Sprintf("HTTP/1.1 %d %s\r\n\r\n", p.status, http.StatusText(p.status)))
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			return
		}
		defer out.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		var g sync.WaitGroup
		g.Go(func() {
			_, _ = io.Copy(out, r)
			out.Close()
		})
		_, _ = io.Copy(c, out)
		c.Close()
		g.Wait()
	})
	return p
}

func (p *tunnels) requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// dialFault dials and returns the fault that has to come of it.
func dialFault(t *testing.T, e *Endpoint) *fault.Fault {
	t.Helper()
	c, err := e.Dial(t.Context())
	if err == nil {
		c.Close(metrics.ClosedFault)
		t.Fatalf("Dial of %s succeeded, want a fault", e.Address())
	}
	f, ok := err.(*fault.Fault)
	if !ok {
		t.Fatalf("Dial = %T %v, want a *fault.Fault", err, err)
	}
	return f
}
