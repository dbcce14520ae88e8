package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/breaker"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/resolve"
)

func TestPickGoesRoundAllServers(t *testing.T) {
	f := newFleet(t, 3, nil, func(_ *fleet, o *Options) { o.Balance = RoundRobin })
	for range 6 {
		e := f.pick(t, new(Tried), Success)
		if e.Upstream() != f.all {
			t.Errorf("Upstream() = %p, want %p", e.Upstream(), f.all)
		}
		c := e.Take(time.Now())
		if c == nil {
			var err error
			if c, err = e.Dial(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if c.Endpoint() != e || len(get(t, c)) == 0 {
			t.Errorf("Endpoint() = %p, want %p and an answer", c.Endpoint(), e)
		}
		c.Keep(time.Now(), -1)
	}
	for i, s := range f.servers {
		if got := s.Stats(); got.Connections != 1 || got.Requests != 2 {
			t.Errorf("server %d saw %d connections and %d requests, want 1 and 2", i, got.Connections, got.Requests)
		}
	}
	if idle, active := f.all.Stats(); idle != 3 || active != 0 {
		t.Errorf("Stats() = %d, %d; want 3, 0", idle, active)
	}
	if got := f.all.Len(); got != 3 {
		t.Errorf("Len() = %d, want 3", got)
	}
}

func TestPickPrefersWhatWasNotTried(t *testing.T) {
	for _, policy := range []Balance{LeastRequests, RoundRobin, First} {
		f := newFleet(t, 3, nil, func(_ *fleet, o *Options) { o.Balance = policy })
		tried, seen := new(Tried), make(map[*Endpoint]bool)
		for range 3 {
			seen[f.pick(t, tried, Abandoned)] = true
		}
		if len(seen) != 3 {
			t.Errorf("policy %v: three tries went to %d endpoints, want 3", policy, len(seen))
		}
		if again := f.pick(t, tried, Abandoned); !seen[again] || tried.Len() != 4 {
			t.Errorf("policy %v: the fourth went to %p, Len() = %d", policy, again, tried.Len())
		}
		for range 20 { // more than are remembered
			f.pick(t, tried, Abandoned)
		}
	}
}

func TestFirstIsTheOrderOfServers(t *testing.T) {
	f := newFleet(t, 3, nil, func(_ *fleet, o *Options) { o.Balance = First })
	tried := new(Tried)
	for i, s := range f.servers {
		if got := f.pick(t, new(Tried), Success).Address(); got != f.servers[0].Addr() {
			t.Errorf("first = %s, want %s", got, f.servers[0].Addr())
		}
		if got := f.pick(t, tried, Success).Address(); got != s.Addr() {
			t.Errorf("choice %d = %s, want %s", i, got, s.Addr())
		}
	}
}

func TestAnotherEndpointTakesOver(t *testing.T) {
	f := newFleet(t, 2, nil, func(_ *fleet, o *Options) { o.Balance = First })
	f.servers[0].Close()
	tried := new(Tried)
	dead := f.pick(t, tried, Failure)
	if fa := dialFault(t, dead); fa.Token != fault.ConnectionRefused || OutcomeOf(fa) != Failure {
		t.Errorf("fault = %v, outcome %d; want %s, a failure", fa, OutcomeOf(fa), fault.ConnectionRefused)
	}
	c, err := f.pick(t, tried, Success).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	get(t, c)
	c.Close(metrics.ClosedByResponse)
}

func TestOutcomeOfWhatIsNotTheEndpointsFault(t *testing.T) {
	for token, want := range map[fault.Token]Outcome{
		fault.CallerGone: Abandoned, fault.Draining: Abandoned, fault.ClientCertificateExpired: Abandoned, fault.ResponseReset: Failure,
	} {
		if got := OutcomeOf(fault.New(token, nil)); got != want {
			t.Errorf("OutcomeOf(%s) = %d, want %d", token, got, want)
		}
	}
	if got := OutcomeOf(nil); got != Success {
		t.Errorf("OutcomeOf(nil) = %d, want %d", got, Success)
	}
}

func TestFailuresInARowEject(t *testing.T) {
	f := newFleet(t, 3, nil, func(_ *fleet, o *Options) { o.Balance = First })
	f.run(t)
	bad := f.servers[0].Addr()
	for range 5 {
		f.pick(t, new(Tried), Failure)
	}
	if s := f.state(t, bad); s.State != "ejected" || s.Until.IsZero() {
		t.Errorf("after 5 failures: %+v, want ejected", s)
	}
	if got := f.pick(t, new(Tried), Success).Address(); got == bad {
		t.Errorf("%s is chosen while it is ejected", got)
	}
	if e := f.event(t, EndpointEjected); e.Endpoint != bad || e.For != 5*time.Second {
		t.Errorf("event = %+v, want %s out for 5s", e, bad)
	}
	if got := f.counter(t, "mtls_proxy_endpoint_ejections_total"); got != 1 {
		t.Errorf("ejections = %d, want 1", got)
	}
	if in, out := f.counter(t, "mtls_proxy_upstream_endpoints", `state="in"`), f.counter(t, "mtls_proxy_upstream_endpoints", `state="ejected"`); in != 2 || out != 1 {
		t.Errorf("endpoints = %d in, %d ejected; want 2, 1", in, out)
	}
}

func TestWhenAllAreOutOneIsForced(t *testing.T) {
	f := newFleet(t, 2, nil, nil)
	for _, s := range f.servers {
		if !f.all.Drain(s.Addr()) {
			t.Errorf("Drain(%s) = false", s.Addr())
		}
	}
	now := time.Now()
	try, fa := f.all.Pick(t.Context(), now, new(Tried))
	if fa != nil || !try.Forced {
		t.Fatalf("Pick = %+v, %v; want a forced one", try, fa)
	}
	if s := f.state(t, try.Endpoint.Address()); s.State != "drained" || s.Outstanding != 1 {
		t.Errorf("status = %+v, want drained with 1 outstanding", s)
	}
	try.End(now, Abandoned)
	if !f.all.Resume(now, f.servers[0].Addr()) || f.all.Resume(now, f.servers[0].Addr()) || f.all.Drain("nobody") {
		t.Error("Resume or Drain is wrong about what there is")
	}
	if got := f.pick(t, new(Tried), Success).Address(); got != f.servers[0].Addr() {
		t.Errorf("chosen %s, want the one that is back, %s", got, f.servers[0].Addr())
	}
	Try{}.End(now, Failure) // has no endpoint
}

func TestServersHaveNamesAndHostsOfTheirOwn(t *testing.T) {
	f := newFleet(t, 2, nil, func(_ *fleet, o *Options) {
		o.Balance = First
		o.Servers[1].Host = "b.example:8443"
		o.Servers[1].ServerName = "b.example" // is not in its certificate
	})
	tried := new(Tried)
	a, b := f.pick(t, tried, Success), f.pick(t, tried, Success)
	if a.ServerName() != "localhost" || a.Host() != "" || b.ServerName() != "b.example" || b.Host() != "b.example:8443" {
		t.Errorf("endpoints = %q %q, %q %q", a.ServerName(), a.Host(), b.ServerName(), b.Host())
	}
	c, err := a.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Close(metrics.ClosedByResponse)
	if fa := dialFault(t, b); fa.Token != fault.ServerNameMismatch {
		t.Errorf("fault = %v, want %s", fa, fault.ServerNameMismatch)
	}
}

func TestPickAndTakeDoNotAllocate(t *testing.T) {
	for _, policy := range []Balance{LeastRequests, RoundRobin, First} {
		f := newFleet(t, 2, nil, func(_ *fleet, o *Options) { o.Balance = policy })
		for range 2 {
			c, err := f.pick(t, new(Tried), Success).Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.Keep(time.Now(), -1)
		}
		ctx, now, tried := t.Context(), time.Now(), new(Tried)
		if n := testing.AllocsPerRun(500, func() {
			*tried = Tried{}
			ticket, _, _ := f.all.Breaker().Admit(now)
			try, _ := f.all.Pick(ctx, now, tried)
			if c := try.Endpoint.Take(now); c != nil {
				c.Keep(now, -1)
			}
			try.End(now, Success)
			f.all.Breaker().Done(now, ticket, breaker.Success)
			f.all.Budget().Request(now)
			f.all.Sweep(now)
		}); n != 0 {
			t.Errorf("policy %v: %v allocations, want 0", policy, n)
		}
	}
}

func TestBreakerChangesAreToldAndCounted(t *testing.T) {
	f := newFleet(t, 1, nil, func(_ *fleet, o *Options) { o.Breaker = Breaker{MinRequests: 2, OpenFor: time.Second, Probes: 1} })
	f.run(t)
	now, b := time.Now(), f.all.Breaker()
	for range 2 {
		ticket, _, _ := b.Admit(now)
		b.Done(now, ticket, breaker.Failure)
	}
	if e := f.event(t, BreakerChanged); e.Change.To != breaker.Open || e.Change.Failures != 2 {
		t.Errorf("event = %+v, want open after 2 failures", e)
	}
	if got := f.counter(t, "mtls_proxy_circuit_breaker_state", `state="open"`); got != 1 {
		t.Errorf("state open = %d, want 1", got)
	}
	ticket, _, ok := b.Admit(now.Add(time.Second))
	if !ok {
		t.Fatal("no probe after open_for")
	}
	f.event(t, BreakerChanged)
	if got := f.counter(t, "mtls_proxy_circuit_breaker_state", `state="half-open"`); got != 1 {
		t.Errorf("state half-open = %d, want 1", got)
	}
	b.Done(now.Add(time.Second), ticket, breaker.Success)
	f.event(t, BreakerChanged)
	for state, want := range map[string]int{"open": 1, "half-open": 1, "closed": 1} {
		if got := f.counter(t, "mtls_proxy_circuit_breaker_transitions_total", `to="`+state+`"`); got != want {
			t.Errorf("transitions to %s = %d, want %d", state, got, want)
		}
	}
}

func TestBudgetIsAShareOfRequestsAndAtLeastThree(t *testing.T) {
	f := newFleet(t, 1, nil, func(_ *fleet, o *Options) { o.Retry = Retry{Budget: 0.2, On: OnConnect | On503, Attempts: 2} })
	now := time.Now()
	if _, limit := f.all.Budget().Level(now); limit != 3 {
		t.Errorf("limit = %d without requests, want 3", limit)
	}
	for range 50 {
		f.all.Budget().Request(now)
	}
	if _, limit := f.all.Budget().Level(now); limit != 10 {
		t.Errorf("limit = %d after 50 requests, want 10", limit)
	}
	if r := f.all.Retry(); !r.On.Has(On503) || r.On.Has(OnReset) || r.On.Has(On503|OnReset) || r.Attempts != 2 {
		t.Errorf("Retry() = %+v", r)
	}
}

// offline is an Upstream whose servers nobody connects to.
func offline(t *testing.T, o Options) *Upstream {
	t.Helper()
	a := newAuthority(t)
	cert, key, err := issue(t, a, demo.Request{CommonName: "test"}).Write(t.TempDir(), "client")
	if err != nil {
		t.Fatal(err)
	}
	if o.Identity, err = identity.Load(identity.Source{Name: "test", Certificate: cert, Key: key}); err != nil {
		t.Fatal(err)
	}
	o.Name, o.URL, o.Bundle = "test", "https://a.test", bundle(t, a)
	o.Metrics, o.Buffers = metrics.New(metrics.Options{}).Upstream("test"), conn.NewBuffers()
	o.Timeout.Connect = 5 * time.Second
	return New(o)
}

func TestPickWaitsForTheFirstAnswer(t *testing.T) {
	type picked struct {
		try Try
		f   *fault.Fault
	}
	for name, c := range map[string]struct {
		zone   *zone
		run    bool
		during func(u *Upstream, cancel context.CancelCauseFunc) // after a second
		want   fault.Token                                       // "": an endpoint
		after  time.Duration
	}{
		"an answer":      {zone: &zone{addrs: map[string]string{"a.test": "10.0.0.1"}}, run: true, after: 0},
		"no such name":   {zone: &zone{}, run: true, want: fault.DNSError, after: 0},
		"a timeout":      {zone: &zone{err: context.DeadlineExceeded}, run: true, want: fault.DNSTimeout, after: 0},
		"nothing at all": {want: fault.DNSTimeout, after: 5 * time.Second},
		"the caller's leaving": {want: fault.CallerGone, after: time.Second,
			during: func(_ *Upstream, cancel context.CancelCauseFunc) { cancel(nil) }},
		"another cause": {want: fault.RequestTimeout, after: time.Second,
			during: func(_ *Upstream, cancel context.CancelCauseFunc) { cancel(fault.New(fault.RequestTimeout, nil)) }},
		"retirement": {want: fault.DNSError, after: time.Second,
			during: func(u *Upstream, _ context.CancelCauseFunc) { u.Retire(time.Time{}) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := offline(t, Options{Servers: []Server{{Address: "a.test:443", ServerName: "a.test"}}, DNS: c.zone})
				if u.Len() != 0 {
					t.Errorf("Len() = %d before the first answer, want 0", u.Len())
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				begin, done := time.Now(), make(chan picked, 1)
				go func() {
					try, f := u.Pick(ctx, time.Now(), new(Tried))
					done <- picked{try, f}
				}()
				synctest.Wait()
				if c.run {
					go u.Run(ctx, nil)
				}
				if c.during != nil {
					time.Sleep(time.Second)
					c.during(u, cancel)
				}
				got := <-done
				switch {
				case c.want == "" && (got.f != nil || got.try.Endpoint.Address() != "a.test@10.0.0.1:443"):
					t.Errorf("Pick = %+v, %v; want an endpoint", got.try, got.f)
				case c.want != "" && (got.f == nil || got.f.Token != c.want):
					t.Errorf("Pick = %v, want %s", got.f, c.want)
				}
				if d := time.Since(begin); d != c.after {
					t.Errorf("that took %v, want %v", d, c.after)
				}
				cancel(nil)
				synctest.Wait()
			})
		})
	}
}

func TestFailedLookupsAreToldOnceAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addrs: map[string]string{}}
		u := offline(t, Options{Servers: []Server{{Address: "a.test:443", ServerName: "a.test"}}, DNS: z})
		ctx, cancel := context.WithCancel(t.Context())
		var kinds []EventKind
		done := make(chan struct{})
		go func() {
			defer close(done)
			u.Run(ctx, &Told{Event: func(e Event) { kinds = append(kinds, e.Kind) }})
		}()
		time.Sleep(10 * time.Second)
		z.set("a.test", "10.0.0.1 10.0.0.2")
		time.Sleep(time.Minute)
		if got := u.Len(); got != 2 {
			t.Errorf("Len() = %d, want 2", got)
		}
		z.set("a.test", "10.0.0.2 10.0.0.3")
		time.Sleep(time.Minute)
		var got []string
		for _, e := range u.Endpoints() {
			got = append(got, e.Address)
		}
		if want := []string{"a.test@10.0.0.2:443", "a.test@10.0.0.3:443"}; !slices.Equal(got, want) {
			t.Errorf("endpoints = %q, want %q", got, want)
		}
		cancel()
		<-done
		if want := []EventKind{ResolveFailed, ResolveRecovered}; !slices.Equal(kinds, want) {
			t.Errorf("events = %v, want %v", kinds, want)
		}
	})
}

func TestRunEndsWhenRetired(t *testing.T) {
	for name, o := range map[string]Options{
		"with names":     {Servers: []Server{{Address: "a.test:443"}}, DNS: &zone{}},
		"with addresses": {Servers: []Server{{Address: "10.0.0.1:443"}}},
		"with a proxy":   {Servers: []Server{{Address: "a.test:443"}}, Proxy: proxyAt(t, "http://10.0.0.9", "")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := offline(t, o)
				done := make(chan struct{})
				go func() {
					defer close(done)
					u.Run(t.Context(), nil)
				}()
				time.Sleep(time.Minute)
				u.Retire(time.Time{})
				<-done
				u.Retire(time.Time{}) // again
				u.Run(t.Context(), nil)
				u.take(time.Now(), []resolve.Address{}) // an answer that comes late
			})
		})
	}
}

func TestSRVHasTiersAndOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{
			addrs: map[string]string{"a.test.": "10.0.0.1 10.0.0.2", "b.test.": "10.0.1.1"},
			srv: map[string][]*net.SRV{"_x._tcp.test": {
				{Target: "b.test.", Port: 8443, Priority: 20, Weight: 1}, {Target: "a.test.", Port: 443, Priority: 10, Weight: 7},
			}},
		}
		u := offline(t, Options{SRV: "_x._tcp.test", Servers: []Server{{ServerName: "x.test", Host: "x.test"}}, DNS: z, Balance: First})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go u.Run(ctx, nil)
		tried := new(Tried)
		var got []string
		for range 3 {
			try, f := u.Pick(ctx, time.Now(), tried)
			if f != nil {
				t.Fatal(f)
			}
			e := try.Endpoint
			got = append(got, e.Address())
			if e.ServerName() != "x.test" || e.Host() != "x.test" {
				t.Errorf("%s is called %q, Host %q; want x.test", e.Address(), e.ServerName(), e.Host())
			}
			try.End(time.Now(), Abandoned)
		}
		if want := []string{"a.test@10.0.0.1:443", "a.test@10.0.0.2:443", "b.test@10.0.1.1:8443"}; !slices.Equal(got, want) {
			t.Errorf("choices = %q, want %q", got, want)
		}
	})
}

// With names and an injected DNS, everything else is real.
func TestNamesLeadToTheirAddresses(t *testing.T) {
	var second *demo.Upstream
	f := newFleet(t, 1, nil, func(f *fleet, o *Options) {
		_, port, _ := net.SplitHostPort(f.servers[0].Addr())
		var err error
		if second, err = demo.NewUpstream(demo.UpstreamOptions{Authority: f.authority, Address: "127.0.0.2:" + port}); err != nil {
			t.Skip(err) // somebody else has that port
		}
		t.Cleanup(func() { second.Close() })
		o.Servers = []Server{{Address: "a.test:" + port, ServerName: "localhost"}}
		o.DNS = &zone{addrs: map[string]string{"a.test": "127.0.0.1 127.0.0.2"}}
		o.Balance = RoundRobin
	})
	f.run(t)
	for range 4 {
		e := f.pick(t, new(Tried), Success)
		if !strings.HasPrefix(e.Address(), "a.test@127.0.0.") {
			t.Errorf("Address() = %q", e.Address())
		}
		c, err := e.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if seen := echo(t, c); seen.ServerName != "localhost" {
			t.Errorf("the server was asked for %q", seen.ServerName)
		}
		c.Close(metrics.ClosedByResponse)
	}
	for i, s := range []*demo.Upstream{f.servers[0], second} {
		if got := s.Stats().Requests; got != 2 {
			t.Errorf("address %d saw %d requests, want 2", i, got)
		}
	}
}

func TestEndpointsThatLeaveKeepNothing(t *testing.T) {
	f := newFleet(t, 2, nil, func(_ *fleet, o *Options) { o.Balance = First })
	now := time.Now()
	leaving := f.pick(t, new(Tried), Success)
	var conns []*Conn
	for range 2 {
		c, err := leaving.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		get(t, c)
		conns = append(conns, c)
	}
	idle, busy := conns[0], conns[1]
	idle.Keep(now, -1)
	stays, err := resolve.New(resolve.Options{Hosts: []string{f.servers[1].Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	f.all.take(now, stays.Addresses())
	if got := f.pick(t, new(Tried), Success).Address(); got != f.servers[1].Addr() || f.all.Len() != 1 {
		t.Errorf("chosen %s of %d, want %s alone", got, f.all.Len(), f.servers[1].Addr())
	}
	if idle, active := f.all.Stats(); idle != 0 || active != 1 {
		t.Errorf("Stats() = %d, %d; want 0, 1", idle, active)
	}
	eventually(t, "the idle connection's end", func() bool { return f.servers[0].Stats().Open == 1 })
	if len(get(t, busy)) == 0 {
		t.Error("the busy connection got no answer")
	}
	busy.Keep(now, -1)
	if c := leaving.Take(now); c != nil {
		t.Errorf("Take = %p of an endpoint that left, want nil", c)
	}
	if got := f.closed(t, metrics.ClosedRetired); got != 2 {
		t.Errorf("closed for retirement = %d, want 2", got)
	}
}

func TestConnectionsThroughAProxy(t *testing.T) {
	var p *tunnels
	f := newFleet(t, 1, nil, func(f *fleet, o *Options) {
		p = newTunnels(t, 200, f.servers[0].Addr())
		o.Servers = []Server{{Address: "api.test:8443", ServerName: "localhost"}} // nobody here can look that up
		o.Proxy = proxyAt(t, "http://user@"+p.address, "secret")
	})
	e := f.pick(t, new(Tried), Success)
	if e.Address() != "api.test:8443" {
		t.Errorf("Address() = %q, want the name", e.Address())
	}
	c, err := e.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if seen := echo(t, c); seen.Certificate == nil || seen.Certificate.Serial != f.client.Serial() {
		t.Errorf("the server saw %+v", seen.Certificate)
	}
	c.Close(metrics.ClosedByResponse)
	if r := p.requests(); len(r) != 1 || r[0].Method != "CONNECT" || r[0].RequestURI != "api.test:8443" {
		t.Errorf("the proxy saw %+v", r)
	} else if r[0].Header.Get("Proxy-Authorization") != "Basic dXNlcjpzZWNyZXQ=" {
		t.Errorf("Proxy-Authorization = %q", r[0].Header.Get("Proxy-Authorization"))
	}
}

func TestFaultsOfAProxy(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		want   fault.Token
		detail string
	}{
		"wants a password": {407, fault.ConfigurationError, "proxy_password_file"},
		"forbids":          {403, fault.ConnectionRefused, "status 403"},
		"finds nobody":     {502, fault.ConnectionRefused, "status 502"},
		"waits in vain":    {504, fault.ConnectionTimeout, "in time"},
		"says nothing":     {0, fault.ConnectionTimeout, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 1, nil, func(f *fleet, o *Options) {
				p := newTunnels(t, c.status, f.servers[0].Addr())
				o.Proxy = proxyAt(t, "http://user@"+p.address, "secret")
				if c.status == 0 {
					o.Timeout.Connect = 20 * time.Millisecond
				}
			})
			fa := dialFault(t, f.pick(t, new(Tried), Abandoned))
			if fa.Token != c.want || !strings.Contains(fa.Detail+" "+fa.Fix, c.detail) {
				t.Errorf("fault = %v with %q, want %s with %q", fa, fa.Detail, c.want, c.detail)
			}
			if strings.Contains(fa.Error(), "secret") || strings.Contains(fa.Error(), "c2VjcmV0") {
				t.Errorf("the password is in %q", fa.Error())
			}
		})
	}
}

// Whatever a proxy sends, it is not our mistake.
func TestBrokenAnswersOfAProxy(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   fault.Token
		detail string
	}{
		"garbage":         {"\x00\x01garbage\r\n\r\n", fault.TunnelResponseMalformed, "not HTTP/1.x"},
		"a short status":  {"HTTP/1.1 20 OK\r\n\r\n", fault.TunnelResponseMalformed, "not HTTP/1.x"},
		"a long head":     {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 20<<10), fault.TunnelResponseMalformed, "longer than 16384 bytes"},
		"bytes behind it": {"HTTP/1.1 200 OK\r\n\r\nhello", fault.TunnelResponseMalformed, "more than its answer"},
		"half an answer":  {"HTTP/1.1 200 OK\r\n", fault.ConnectionReset, "HTTP proxy"},
		"nothing":         {"", fault.ConnectionReset, "HTTP proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			address := listen(t, func(nc net.Conn) {
				r := bufio.NewReader(nc)
				for line := ""; line != "\r\n"; {
					var err error
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
				}
				_, _ = io.WriteString(nc, c.answer)
			})
			f := newFleet(t, 1, nil, func(f *fleet, o *Options) { o.Proxy = proxyAt(t, "http://"+address, "") })
			fa := dialFault(t, f.pick(t, new(Tried), Abandoned))
			if fa.Token != c.want || !strings.Contains(fa.Detail+" "+fa.Fix, c.detail) {
				t.Errorf("fault = %v with %q, want %s with %q", fa, fa.Detail, c.want, c.detail)
			}
			if !strings.Contains(fa.ToDo(), "proxy") {
				t.Errorf("what to do is %q; want it about the proxy", fa.ToDo())
			}
		})
	}
}

func TestAddressWithoutAnInterface(t *testing.T) {
	f := newFleet(t, 0, nil, func(_ *fleet, o *Options) { o.Servers = []Server{{Address: "[fe80::1]:443", ServerName: "localhost"}} })
	if fa := dialFault(t, f.pick(t, new(Tried), Abandoned)); fa.Token != fault.NetworkUnreachable {
		t.Errorf("fault = %v, want %s", fa, fault.NetworkUnreachable)
	}
}

func TestDialThroughAProxyEndsWithItsContext(t *testing.T) {
	f := newFleet(t, 1, nil, func(f *fleet, o *Options) {
		o.Proxy = proxyAt(t, "http://"+newTunnels(t, 0, "").address, "")
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, fault.New(fault.RequestTimeout, errors.New("over")))
	defer cancel()
	_, err := f.pick(t, new(Tried), Abandoned).Dial(ctx)
	if fa, ok := err.(*fault.Fault); !ok || fa.Token != fault.RequestTimeout {
		t.Errorf("Dial = %v, want %s", err, fault.RequestTimeout)
	}
}
