package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a DNS that knows what is written in it.
type zone struct {
	mu      sync.Mutex
	addrs   map[string]string // name -> addresses, apart by spaces
	srv     map[string][]net.SRV
	srvErr  error // besides the records, as for those with bad names
	takes   time.Duration
	lookups []time.Time
	running int
	most    int // lookups at the same time
}

func (z *zone) set(name, addrs string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[name] = addrs
}

func (z *zone) begin(ctx context.Context) error {
	z.mu.Lock()
	z.lookups = append(z.lookups, time.Now())
	z.running++
	z.most = max(z.most, z.running)
	takes := z.takes
	z.mu.Unlock()
	defer func() {
		z.mu.Lock()
		z.running--
		z.mu.Unlock()
	}()
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if err := z.begin(ctx); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if network != "ip" {
		return nil, fmt.Errorf("network %q", network)
	}
	text, ok := z.addrs[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var all []netip.Addr
	for _, a := range strings.Fields(text) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all, nil
}

func (z *zone) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if err := z.begin(ctx); err != nil {
		return "", nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	records, ok := z.srv[name]
	if !ok || service != "" || proto != "" {
		return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	var all []*net.SRV
	for i := range records {
		all = append(all, new(records[i]))
	}
	return name, all, z.srvErr
}

func (z *zone) count() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.lookups)
}

// inBubble runs f beside a Resolver of o, in a bubble.
func inBubble(t *testing.T, z *zone, o Options, f func(t *testing.T, r *Resolver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.DNS = z
		r, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { r.Run(ctx) })
		defer group.Wait()
		defer cancel()
		synctest.Wait()
		f(t, r)
	})
}

// sleep lets d pass and everything happen that happens until then.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func text(all []Address) string {
	var parts []string
	for _, a := range all {
		parts = append(parts, fmt.Sprintf("%s=%s/%d/%d", a.Host, a.AddrPort, a.Priority, a.Weight))
	}
	return strings.Join(parts, " ")
}

func wantAddresses(t *testing.T, r *Resolver, want string) {
	t.Helper()
	if got := text(r.Addresses()); got != want {
		t.Fatalf("Addresses() = %s\nwant %s", got, want)
	}
}

func TestEveryAddressOfEveryHostIsUsed(t *testing.T) {
	z := &zone{addrs: map[string]string{"a.test": "192.0.2.1 ::ffff:192.0.2.2 2001:db8::1", "b.test": "2001:db8::2 2001:db8::2"}}
	inBubble(t, z, Options{Hosts: []string{"a.test:8443", "b.test:443", "192.0.2.9:1"}}, func(t *testing.T, r *Resolver) {
		wantAddresses(t, r, "a.test=192.0.2.1:8443/0/840 a.test=[2001:db8::1]:8443/0/840 a.test=192.0.2.2:8443/0/840 "+
			"b.test=[2001:db8::2]:443/0/2520 192.0.2.9=192.0.2.9:1/0/2520")
		a := r.Current()
		if !a.Changed || a.Err != nil || a.Failures != 0 {
			t.Errorf("Current() = %+v; want a good first answer", a)
		}
	})
}

func TestIPAddressesAreNotLookedUp(t *testing.T) {
	z := new(zone)
	answers := 0
	o := Options{Hosts: []string{"192.0.2.1:443", "[2001:db8::1]:443", "[fe80::1%lo]:443"}, Answered: func(Answer) { answers++ }}
	inBubble(t, z, o, func(t *testing.T, r *Resolver) {
		<-r.First()
		wantAddresses(t, r, "192.0.2.1=192.0.2.1:443/0/2520 2001:db8::1=[2001:db8::1]:443/0/2520 fe80::1%lo=[fe80::1%lo]:443/0/2520")
		r.Refresh()
		sleep(time.Hour)
		if n := z.count(); n != 0 || answers != 1 {
			t.Errorf("%d lookups, %d answers; want 0, 1", n, answers)
		}
	})
}

func TestNamesAreLookedUpAgainAndAgain(t *testing.T) {
	z := &zone{addrs: map[string]string{"a.test": "192.0.2.1 192.0.2.2"}}
	var changes []string
	o := Options{Hosts: []string{"a.test:1"}, Period: 30 * time.Second, Answered: func(a Answer) {
		if a.Changed {
			changes = append(changes, text(a.Addresses))
		}
	}}
	inBubble(t, z, o, func(t *testing.T, r *Resolver) {
		z.set("a.test", "192.0.2.2 192.0.2.1") // the same, in another order
		sleep(10 * time.Minute)
		if n := z.count(); n < 18 || n > 23 {
			t.Errorf("%d lookups in 10 min; want about 20", n)
		}
		z.set("a.test", "192.0.2.3")
		sleep(33 * time.Second)
		wantAddresses(t, r, "a.test=192.0.2.3:1/0/2520")
		want := []string{"a.test=192.0.2.1:1/0/1260 a.test=192.0.2.2:1/0/1260", "a.test=192.0.2.3:1/0/2520"}
		if !slices.Equal(changes, want) {
			t.Errorf("changes %q; want %q", changes, want)
		}
	})
	for i := 1; i < len(z.lookups); i++ {
		if d := z.lookups[i].Sub(z.lookups[i-1]); d < 27*time.Second || d > 33*time.Second {
			t.Errorf("%v between lookups; want 27s to 33s", d)
		}
	}
}

func TestRefreshHurriesButNotMoreThanOnceASecond(t *testing.T) {
	z := &zone{addrs: map[string]string{"a.test": "192.0.2.1"}, takes: 100 * time.Millisecond}
	inBubble(t, z, Options{Hosts: []string{"a.test:1"}, Period: time.Hour}, func(t *testing.T, r *Resolver) {
		for range 10000 {
			r.Refresh()
			sleep(time.Millisecond)
		}
		if n := z.count(); n < 9 || n > 11 {
			t.Errorf("%d lookups in 10 s of asking all the time; want about 9, one for each 1.1 s", n)
		}
		sleep(10 * time.Second)
		before := z.count()
		r.Refresh()
		sleep(time.Millisecond)
		if n := z.count(); n != before+1 {
			t.Errorf("%d lookups at once after it had been quiet; want 1", n-before)
		}
	})
	if z.most != 1 {
		t.Errorf("%d lookups at the same time; want 1", z.most)
	}
}

// While lookups fail and are asked for, they are made four times a second at first, and once a second after a while.
func TestFailedLookupsAreMadeAgainSoon(t *testing.T) {
	z := &zone{addrs: make(map[string]string)}
	inBubble(t, z, Options{Hosts: []string{"a.test:1"}, Period: time.Hour}, func(t *testing.T, r *Resolver) {
		lookups := func(d time.Duration) (n int) {
			before := z.count()
			for end := time.Now().Add(d); time.Now().Before(end); sleep(10 * time.Millisecond) {
				r.Refresh()
			}
			return z.count() - before
		}
		if n := lookups(10 * time.Second); n < 36 || n > 40 {
			t.Errorf("%d lookups in the first 10 s; want about 40", n)
		}
		lookups(2 * time.Minute)
		if n := lookups(10 * time.Second); n > 10 {
			t.Errorf("%d lookups in 10 s after 2 minutes; want one each second at most", n)
		}
		z.set("a.test", "192.0.2.1")
		lookups(time.Second + 10*time.Millisecond)
		wantAddresses(t, r, "a.test=192.0.2.1:1/0/2520")
	})
}

// What was asked while the name server was away is never answered.
func TestLookupIsMadeAgainBesideOneThatHangs(t *testing.T) {
	z := &zone{addrs: map[string]string{"a.test": "192.0.2.1"}, takes: time.Hour}
	inBubble(t, z, Options{Hosts: []string{"a.test:1"}}, func(t *testing.T, r *Resolver) {
		sleep(3500 * time.Millisecond)
		if z.most > 3 { // the first, and one that begins just as another ends
			t.Errorf("%d lookups at the same time; want 3 at most", z.most)
		}
		z.mu.Lock()
		z.takes = time.Millisecond
		z.mu.Unlock()
		sleep(time.Second)
		wantAddresses(t, r, "a.test=192.0.2.1:1/0/2520")
	})
}

func TestLastGoodAnswerIsKept(t *testing.T) {
	z := &zone{addrs: map[string]string{"a.test": "192.0.2.1", "b.test": "192.0.2.2"}}
	var failures []int
	o := Options{Hosts: []string{"a.test:1", "b.test:1"}, Answered: func(a Answer) { failures = append(failures, a.Failures) }}
	inBubble(t, z, o, func(t *testing.T, r *Resolver) {
		z.mu.Lock()
		delete(z.addrs, "a.test")
		z.addrs["b.test"] = "192.0.2.3"
		z.mu.Unlock()
		for r.Current().Err == nil {
			sleep(time.Millisecond)
		}
		wantAddresses(t, r, "a.test=192.0.2.1:1/0/2520 b.test=192.0.2.3:1/0/2520")
		var dns *net.DNSError
		if a := r.Current(); !errors.As(a.Err, &dns) || dns.Name != "a.test" || a.Failures != 1 {
			t.Errorf("Current() = %+v; want an error about a.test", a)
		}
		before := z.count()
		sleep(17 * time.Second)
		if n := (z.count() - before) / 2; n != 4 {
			t.Errorf("%d rounds in the 17 s after a failure; want 4, after 1 s, 2 s, 4 s and 8 s", n)
		}
		z.set("a.test", "192.0.2.9")
		sleep(33 * time.Second)
		wantAddresses(t, r, "a.test=192.0.2.9:1/0/2520 b.test=192.0.2.3:1/0/2520")
		if a := r.Current(); a.Err != nil || a.Failures != 0 {
			t.Errorf("Current() = %+v; want no error any more", a)
		}
	})
	if len(failures) < 7 || !slices.Equal(failures[:7], []int{0, 1, 2, 3, 4, 5, 0}) {
		t.Errorf("failures in a row %v; want 0 1 2 3 4 5 0", failures)
	}
}

func TestFirstRoundEndsThoughNobodyAnswers(t *testing.T) {
	z := &zone{addrs: map[string]string{"a.test": "192.0.2.1"}, takes: time.Hour}
	inBubble(t, z, Options{Hosts: []string{"a.test:1", "192.0.2.7:1"}, Timeout: 2 * time.Second}, func(t *testing.T, r *Resolver) {
		begin := time.Now()
		<-r.First()
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("first round took %v; want 2s", d)
		}
		wantAddresses(t, r, "192.0.2.7=192.0.2.7:1/0/2520")
		if a := r.Current(); !errors.Is(a.Err, context.DeadlineExceeded) || !a.Changed {
			t.Errorf("Current() = %+v; want a deadline exceeded, and changed", a)
		}
	})
}

func TestRunEndsInTheMiddleOfALookup(t *testing.T) {
	z := &zone{takes: time.Hour}
	answers := 0
	o := Options{Hosts: []string{"a.test:1"}, Timeout: time.Hour, Answered: func(Answer) { answers++ }}
	inBubble(t, z, o, func(*testing.T, *Resolver) {})
	if answers != 0 {
		t.Errorf("%d answers; want none of a round that was broken off", answers)
	}
}

func TestManyHostsAreLookedUpAFewAtATime(t *testing.T) {
	z := &zone{addrs: make(map[string]string), takes: time.Millisecond}
	var hosts []string
	for i := range 50 {
		z.addrs[fmt.Sprintf("h%d.test", i)] = "192.0.2.1"
		hosts = append(hosts, fmt.Sprintf("h%d.test:1", i))
	}
	inBubble(t, z, Options{Hosts: hosts}, func(t *testing.T, r *Resolver) {
		<-r.First()
		if n := len(r.Addresses()); n != 50 {
			t.Errorf("%d addresses; want 50", n)
		}
	})
	if z.most != atOnce {
		t.Errorf("%d lookups at the same time; want %d", z.most, atOnce)
	}
}

func TestSRVRecordsNameHostsWithPriorityAndWeight(t *testing.T) {
	const name = "_ledger._tcp.test"
	z := &zone{
		addrs: map[string]string{"a.test.": "192.0.2.1 192.0.2.2", "b.test.": "192.0.2.3", "c.test.": "192.0.2.4"},
		srv: map[string][]net.SRV{name: {
			{Target: "c.test.", Port: 3, Priority: 20, Weight: 0},
			{Target: "b.test.", Port: 2, Priority: 10, Weight: 20},
			{Target: "a.test.", Port: 1, Priority: 10, Weight: 60},
		}},
	}
	good := "a.test=192.0.2.1:1/10/75600 a.test=192.0.2.2:1/10/75600 b.test=192.0.2.3:2/10/50400 c.test=192.0.2.4:3/20/0"
	inBubble(t, z, Options{SRV: name}, func(t *testing.T, r *Resolver) {
		wantAddresses(t, r, good)
		z.mu.Lock()
		records := z.srv[name]
		delete(z.srv, name)
		z.mu.Unlock()
		sleep(33 * time.Second)
		wantAddresses(t, r, good)
		if a := r.Current(); a.Err == nil || !strings.Contains(a.Err.Error(), name) {
			t.Errorf("error %v; want one about %s", a.Err, name)
		}
		z.mu.Lock()
		z.srv[name], z.srvErr = records[1:2], errors.New("a record with a bad name was left out")
		z.mu.Unlock()
		sleep(33 * time.Second)
		wantAddresses(t, r, "b.test=192.0.2.3:2/10/50400")
		if a := r.Current(); a.Err == nil {
			t.Error("no error about the record that was left out")
		}
		z.mu.Lock()
		z.srv[name], z.srvErr = []net.SRV{{Target: ".", Port: 1}}, nil
		z.mu.Unlock()
		sleep(33 * time.Second)
		wantAddresses(t, r, "b.test=192.0.2.3:2/10/50400")
		if a := r.Current(); a.Err == nil {
			t.Error("no error about records that name no host")
		}
	})
}

func TestNewRefusesWhatCannotBeLookedUp(t *testing.T) {
	for _, o := range []Options{
		{},
		{Hosts: []string{"a.test:1"}, SRV: "_a._tcp.test"},
		{Hosts: []string{"a.test"}},
		{Hosts: []string{"a.test:0"}},
		{Hosts: []string{"a.test:65536"}},
		{Hosts: []string{"a.test:http"}},
		{Hosts: []string{":1"}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) accepts it", o)
		}
	}
}

func TestInterleave(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"one family", "192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.2"},
		{"IPv6 first", "::1 ::2 192.0.2.1 192.0.2.2", "::1 192.0.2.1 ::2 192.0.2.2"},
		{"IPv4 first", "192.0.2.1 192.0.2.2 192.0.2.3 ::1", "192.0.2.1 ::1 192.0.2.2 192.0.2.3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in []netip.Addr
			for _, a := range strings.Fields(tt.in) {
				in = append(in, netip.MustParseAddr(a))
			}
			var got []string
			for _, a := range Interleave(in) {
				got = append(got, a.String())
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("Interleave(%s) = %v; want %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestTheSystemsResolverKnowsLocalhost(t *testing.T) {
	r, err := New(Options{Hosts: []string{"localhost:1"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { r.Run(ctx) })
	<-r.First()
	cancel()
	group.Wait()
	if a := r.Addresses(); len(a) == 0 || !a[0].Addr().IsLoopback() || a[0].Addr().Is4In6() {
		t.Errorf("localhost has %s (%v); want loopback addresses", text(a), r.Current().Err)
	}
}

func TestAddressesOfAnotherFamilyAreLeftOut(t *testing.T) {
	for network, want := range map[string]string{"ip4": "10.0.0.1:443", "ip6": "[2001:db8::1]:443", "": "10.0.0.1:443 [2001:db8::1]:443"} {
		r, err := New(Options{Hosts: []string{"10.0.0.1:443", "[2001:db8::1]:443"}, Network: network})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range r.Addresses() {
			got = append(got, a.AddrPort.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("network %q: %q, want %s", network, got, want)
		}
	}
}
