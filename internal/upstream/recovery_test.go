package upstream

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/balance"
	"github.com/mtls-proxy/mtls-proxy/internal/breaker"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// trials are those of an Upstream that runs in a bubble.
type trials struct {
	*Upstream
	stop func()

	mu   sync.Mutex
	down map[string]bool // by address
	made map[string]int
}

func newTrials(t *testing.T, o Options) *trials {
	t.Helper()
	tr := &trials{Upstream: offline(t, o), down: make(map[string]bool), made: make(map[string]int)}
	tr.recovery.try = func(e *Endpoint, ctx context.Context) error {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.made[e.address]++
		if tr.down[e.address] {
			return fault.New(fault.ConnectionRefused, nil)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { tr.Run(ctx, nil) })
	tr.stop = func() { cancel(); group.Wait() }
	synctest.Wait()
	return tr
}

func (tr *trials) away(down bool, addresses ...string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, a := range addresses {
		tr.down[a] = down
	}
}

// tried counts the trials of an address since the last call.
func (tr *trials) tried(address string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := tr.made[address]
	tr.made[address] = 0
	return n
}

// trip opens the circuit breaker.
func (tr *trials) trip() {
	for range 20 {
		now := time.Now()
		ticket, _, _ := tr.Breaker().Admit(now)
		tr.Breaker().Done(now, ticket, breaker.Failure)
	}
}

// eject has the endpoint with that address fail.
func (tr *trials) eject(address string) {
	for _, m := range tr.Upstream.set.Endpoints() {
		for m.Data.address == address && m.Status(time.Now()).State == balance.In {
			m.Begin().End(time.Now(), Failure)
		}
	}
}

func (tr *trials) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (tr *trials) want(t *testing.T, s breaker.State, when string) {
	t.Helper()
	if got := tr.Breaker().State(); got != s {
		t.Fatalf("%s the circuit breaker is %v; want %v", when, got, s)
	}
}

const a, b = "10.0.0.1:443", "10.0.0.2:443"

func TestCircuitBreakerClosesWhenConnectionsComeAboutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrials(t, Options{Servers: []Server{{Address: a}}, Breaker: Breaker{OpenFor: time.Hour}})
		defer tr.stop()
		tr.away(true, a)
		for _, downtime := range []time.Duration{3 * time.Second, 20 * time.Second, time.Second} {
			tr.trip()
			tr.wait(downtime)
			tr.want(t, breaker.Open, "while nothing is reached,")
			if got := tr.RetryAfter(time.Minute); got != time.Second {
				t.Errorf("RetryAfter() = %v while nothing is reached, want 1s", got)
			}
			if n, most := tr.tried(a), int(downtime/minTrialPause)+1; n < most-1 || n > most {
				t.Errorf("%d connections were tried in %v; want four a second", n, downtime)
			}
			tr.away(false, a)
			tr.wait(minTrialPause)
			tr.want(t, breaker.Closed, "a quarter of a second after recovery")
			tr.tried(a)
			tr.wait(time.Minute)
			if n := tr.tried(a); n != 0 {
				t.Errorf("%d connections were tried after that", n)
			}
			if got := tr.RetryAfter(time.Minute); got != time.Minute {
				t.Errorf("RetryAfter() = %v after that, want 1m", got)
			}
			tr.away(true, a)
		}
	})
}

func TestTrialsBecomeRarer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrials(t, Options{Servers: []Server{{Address: a}}, Breaker: Breaker{OpenFor: 2 * time.Hour}})
		defer tr.stop()
		tr.away(true, a)
		tr.trip()
		tr.wait(time.Hour)
		tr.tried(a)
		tr.wait(10 * time.Minute)
		if n := tr.tried(a); n < 14 || n > 17 {
			t.Errorf("%d connections were tried in 10 minutes after an hour; want one in 36 to 42 s", n)
		}
	})
}

// An upstream that is reached and answers badly is left alone for all of open_for.
func TestCircuitBreakerStaysOpenWhereAnswersAreTheTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrials(t, Options{Servers: []Server{{Address: a}, {Address: b}}, Breaker: Breaker{OpenFor: time.Hour}})
		defer tr.stop()
		tr.away(true, b) // that is not why
		tr.trip()
		tr.wait(time.Minute)
		tr.want(t, breaker.Open, "after a minute")
		if n := tr.tried(a); n != 1 {
			t.Errorf("%d connections were tried, want 1", n)
		}
		tr.away(false, b) // there is one more to try
		tr.wait(10 * time.Second)
		tr.want(t, breaker.Closed, "when another server is back,")
	})
}

// After open_for the next exchange is let through in any case, so connections of our own have no purpose.
func TestIdleUpstreamIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrials(t, Options{Servers: []Server{{Address: a}}, Breaker: Breaker{OpenFor: 5 * time.Second}})
		defer tr.stop()
		tr.away(true, a)
		tr.trip()
		tr.wait(6 * time.Second)
		tr.tried(a)
		tr.wait(time.Hour)
		if n := tr.tried(a); n != 0 {
			t.Errorf("%d connections were tried while there were no exchanges", n)
		}
	})
}

func TestEjectionEndsWhenConnectionsComeAboutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrials(t, Options{Servers: []Server{{Address: a}, {Address: b}}})
		defer tr.stop()
		state := func() string { return tr.Endpoints()[0].State }
		tr.away(true, a)
		tr.eject(a)
		tr.wait(3 * time.Second)
		if got := state(); got != "ejected" {
			t.Fatalf("it is %s while nothing is reached", got)
		}
		tr.away(false, a)
		tr.wait(minTrialPause)
		if got := state(); got != "in" {
			t.Errorf("it is %s a quarter of a second after recovery", got)
		}
		tr.tried(a)
		tr.eject(a) // for its answers
		tr.wait(4 * time.Second)
		if got := state(); got != "ejected" || tr.tried(a) != 1 {
			t.Errorf("reached all the time, it is %s before its time is over", got)
		}
		if n := tr.tried(b); n != 0 {
			t.Errorf("%d connections were tried to one that is in", n)
		}
	})
}

func TestDrainedEndpointIsNotTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrials(t, Options{Servers: []Server{{Address: a}, {Address: b}}, Breaker: Breaker{OpenFor: time.Hour}})
		defer tr.stop()
		tr.Drain(a)
		tr.trip()
		tr.wait(time.Minute)
		if n := tr.tried(a); n != 0 {
			t.Errorf("%d connections were tried", n)
		}
	})
}

// The circuit breaker keeps exchanges from asking for addresses, so that they are asked for without.
func TestCircuitBreakerClosesWhenThereAreAddressesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addrs: make(map[string]string)}
		tr := newTrials(t, Options{Servers: []Server{{Address: "a.test:443"}}, DNS: z, Breaker: Breaker{OpenFor: time.Hour}})
		defer tr.stop()
		tr.trip()
		tr.wait(10 * time.Second)
		z.set("a.test", "10.0.0.1")
		tr.wait(2*minTrialPause + 10*time.Millisecond)
		tr.want(t, breaker.Closed, "after DNS is back,")
	})
	synctest.Test(t, func(t *testing.T) { // the service has moved, which DNS tells late
		z := &zone{addrs: map[string]string{"a.test": "10.0.0.1"}}
		tr := newTrials(t, Options{Servers: []Server{{Address: "a.test:443"}}, DNS: z, Breaker: Breaker{OpenFor: time.Hour}})
		defer tr.stop()
		tr.away(true, a)
		tr.trip()
		tr.wait(10 * time.Second)
		z.set("a.test", "10.0.0.2")
		tr.wait(time.Second + 10*time.Millisecond)
		tr.want(t, breaker.Closed, "after there is a new address,")
	})
}

// Through the real thing: the server is away and comes back, and the connection that found out is kept for exchanges.
func TestRecoveryMakesAConnection(t *testing.T) {
	f := newFleet(t, 1, nil, func(_ *fleet, o *Options) {
		o.Breaker = Breaker{MinRequests: 2, OpenFor: time.Hour}
	})
	var failed atomic.Bool
	f.all.recovery.try = func(e *Endpoint, ctx context.Context) error {
		err := e.trial(ctx)
		failed.Store(failed.Load() || err != nil)
		return err
	}
	f.run(t)
	address := f.servers[0].Addr()
	if err := f.servers[0].Close(); err != nil {
		t.Fatal(err)
	}
	hold(t, address)
	for range 2 {
		now := time.Now()
		ticket, _, _ := f.all.Breaker().Admit(now)
		_, err := f.pick(t, new(Tried), Failure).Dial(t.Context())
		if fault.Classify(fault.PhaseConnect, err).Token != fault.ConnectionRefused {
			t.Fatalf("Dial = %v, want a refusal", err)
		}
		f.all.Done(now, ticket, Failure)
	}
	eventually(t, "a trial has failed", failed.Load)
	back, err := demo.NewUpstream(demo.UpstreamOptions{Authority: f.authority, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	eventually(t, "the circuit breaker is closed", func() bool { return f.all.Breaker().State() == breaker.Closed })
	if idle, _ := f.all.Stats(); idle != 1 {
		t.Errorf("%d connections are kept, want 1", idle)
	}
}

// hold keeps a port from everything but listeners of this test: connections to it are refused until one listens there.
func hold(t *testing.T, address string) {
	t.Helper()
	at := netip.MustParseAddrPort(address)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil { // as net does for listeners
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
}
