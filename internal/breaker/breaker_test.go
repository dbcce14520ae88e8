package breaker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clock is a time that tests move on.
type clock struct{ now time.Time }

func newClock(b *Breaker) *clock                  { return &clock{b.start} }
func (c *clock) pass(d time.Duration)             { c.now = c.now.Add(d) }
func (c *clock) admits(b *Breaker) bool           { _, _, ok := b.Admit(c.now); return ok }
func (c *clock) since(at time.Time) time.Duration { return c.now.Sub(at) }

// exchange goes through b and ends as o; it reports whether it was admitted.
func (c *clock) exchange(b *Breaker, o Outcome) bool {
	t, _, ok := b.Admit(c.now)
	if ok {
		b.Done(c.now, t, o)
	}
	return ok
}

// opened returns a Breaker that has just opened.
func opened(t *testing.T, o Options) (*Breaker, *clock) {
	t.Helper()
	b := New(o)
	c := newClock(b)
	for range b.o.MinRequests {
		c.exchange(b, Failure)
	}
	if got := b.State(); got != Open {
		t.Fatalf("after %d failures it is %v; want open", b.o.MinRequests, got)
	}
	return b, c
}

// halfOpened returns a Breaker whose next exchange makes it half-open.
func halfOpened(t *testing.T, o Options) (*Breaker, *clock) {
	t.Helper()
	b, c := opened(t, o)
	c.pass(b.o.OpenFor)
	return b, c
}

func want(t *testing.T, b *Breaker, s State, when string) {
	t.Helper()
	if got := b.State(); got != s {
		t.Fatalf("%s it is %v; want %v", when, got, s)
	}
}

func TestBreakerOpensAtTheRatioOnceEnoughWasSeen(t *testing.T) {
	b := New(Options{FailureRatio: 0.5, MinRequests: 10})
	c := newClock(b)
	for range 5 {
		c.exchange(b, Success)
	}
	for range 4 {
		c.exchange(b, Failure)
	}
	want(t, b, Closed, "with 4 failures in 9")
	c.exchange(b, Failure)
	want(t, b, Open, "with 5 failures in 10")
	if got := b.Last(); got != (Change{From: Closed, To: Open, At: c.now, Requests: 10, Failures: 5}) {
		t.Errorf("Last() = %+v; want closed to open with 5 of 10", got)
	}
}

func TestBreakerForgetsWhatIsOlderThanItsWindow(t *testing.T) {
	b := New(Options{MinRequests: 10, Window: 10 * time.Second})
	c := newClock(b)
	for range 9 {
		c.exchange(b, Failure)
	}
	c.pass(11 * time.Second)
	if requests, failures := b.Recent(c.now); requests != 0 || failures != 0 {
		t.Errorf("Recent() after the window = %d, %d; want 0, 0", requests, failures)
	}
	for range 9 {
		c.exchange(b, Failure)
	}
	want(t, b, Closed, "with 9 failures in this window and 9 before")
	c.exchange(b, Failure)
	want(t, b, Open, "with 10 failures in this window")
}

func TestBreakerDoesNotCountAbandonedExchanges(t *testing.T) {
	b := New(Options{MinRequests: 2})
	c := newClock(b)
	for range 100 {
		c.exchange(b, Abandoned)
	}
	if requests, failures := b.Recent(c.now); requests != 0 || failures != 0 {
		t.Errorf("Recent() = %d, %d; want 0, 0", requests, failures)
	}
}

func TestOpenBreakerTellsHowLong(t *testing.T) {
	b, c := opened(t, Options{OpenFor: 5 * time.Second})
	c.pass(2 * time.Second)
	if _, retry, ok := b.Admit(c.now); ok || retry != 3*time.Second {
		t.Errorf("Admit() = %v, %v; want 3s, false", retry, ok)
	}
	c.pass(3 * time.Second)
	if !c.admits(b) {
		t.Error("refused after the advertised time")
	}
	want(t, b, HalfOpen, "after that")
}

func TestHalfOpenBreakerAdmitsExactlyItsProbes(t *testing.T) {
	b, c := halfOpened(t, Options{Probes: 3})
	for i := range 3 {
		if !c.admits(b) {
			t.Fatalf("probe %d was refused", i+1)
		}
	}
	if _, retry, ok := b.Admit(c.now); ok || retry != time.Second {
		t.Errorf("fourth Admit() = %v, %v; want 1s, false", retry, ok)
	}
}

func TestProbesDecide(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ratio  float64
		probes []Outcome
		want   State
	}{
		{"two of three successes suffice at one half", 0.5, []Outcome{Success, Success}, Closed},
		{"two of three failures suffice at one half", 0.5, []Outcome{Failure, Failure}, Open},
		{"one each leaves it to the third", 0.5, []Outcome{Failure, Success}, HalfOpen},
		{"which may be a success", 0.5, []Outcome{Failure, Success, Success}, Closed},
		{"or a failure", 0.5, []Outcome{Failure, Success, Failure}, Open},
		{"one failure suffices at a tenth", 0.1, []Outcome{Failure}, Open},
		{"one success suffices at one", 1, []Outcome{Success}, Closed},
		{"abandoned ones say nothing", 0.5, []Outcome{Abandoned, Abandoned, Abandoned, Abandoned}, HalfOpen},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, c := halfOpened(t, Options{FailureRatio: tt.ratio, Probes: 3})
			for i, o := range tt.probes {
				if !c.exchange(b, o) {
					t.Fatalf("probe %d was refused", i+1)
				}
			}
			want(t, b, tt.want, fmt.Sprint("after ", tt.probes))
		})
	}
}

func TestBreakerThatClosedStartsAfresh(t *testing.T) {
	b, c := halfOpened(t, Options{MinRequests: 20, Window: time.Hour, Probes: 1})
	c.exchange(b, Success)
	want(t, b, Closed, "after a good probe")
	for range 19 {
		c.exchange(b, Failure)
	}
	want(t, b, Closed, "with 19 failures since")
}

func TestAbandonedProbeMakesRoomForAnother(t *testing.T) {
	b, c := halfOpened(t, Options{Probes: 1})
	for i := range 10 {
		if !c.exchange(b, Abandoned) {
			t.Fatalf("probe %d was refused after the one before was abandoned", i+1)
		}
	}
	probe, _, ok := b.Admit(c.now)
	if !ok || c.admits(b) {
		t.Fatal("does not admit exactly one")
	}
	b.Done(c.now, probe, Success)
	want(t, b, Closed, "after a good probe")
}

func TestProbesThatNeverEndAreNotWaitedFor(t *testing.T) {
	b, c := halfOpened(t, Options{FailureRatio: 0.6, OpenFor: 5 * time.Second, Probes: 2})
	hung, _, _ := b.Admit(c.now)
	c.admits(b)
	c.pass(5*time.Second - time.Millisecond)
	if _, retry, ok := b.Admit(c.now); ok || retry != time.Millisecond {
		t.Fatalf("Admit() before the probes' time is over = %v, %v; want 1ms, false", retry, ok)
	}
	c.pass(time.Millisecond)
	later, _, ok := b.Admit(c.now)
	if !ok || !c.admits(b) || c.admits(b) {
		t.Fatal("does not admit exactly two more once their time is over")
	}
	b.Done(c.now, hung, Abandoned)
	if c.admits(b) {
		t.Error("a hung probe that is abandoned makes room once more, which its lease already did")
	}
	b.Done(c.now, later, Success)
	want(t, b, Closed, "after a good probe")
}

func TestHungProbeThatFailsAfterAllCounts(t *testing.T) {
	b, c := halfOpened(t, Options{OpenFor: time.Second, Probes: 1})
	hung, _, _ := b.Admit(c.now)
	c.pass(time.Second)
	c.admits(b)
	b.Done(c.now, hung, Failure)
	want(t, b, Open, "after the hung probe failed")
}

func TestExchangesOfAnEarlierPeriodDoNotCount(t *testing.T) {
	b := New(Options{Probes: 1, MinRequests: 20})
	c := newClock(b)
	var hung []Ticket
	for range 100 {
		t, _, _ := b.Admit(c.now)
		hung = append(hung, t)
	}
	for range 20 {
		c.exchange(b, Failure)
	}
	want(t, b, Open, "after 20 failures")
	c.pass(b.o.OpenFor)
	probe, _, _ := b.Admit(c.now)
	for _, h := range hung[:50] {
		b.Done(c.now, h, Failure)
	}
	want(t, b, HalfOpen, "after failures of exchanges that began before")
	b.Done(c.now, probe, Success)
	for _, h := range hung[50:] {
		b.Done(c.now, h, Failure)
	}
	want(t, b, Closed, "after more of them")
	b.Done(c.now, Ticket{}, Failure)
}

func TestEachChangeIsToldOnceAndInOrder(t *testing.T) {
	var told []Change
	b, c := halfOpened(t, Options{Probes: 1, Changed: func(c Change) { told = append(told, c) }})
	c.exchange(b, Failure)
	c.pass(b.o.OpenFor)
	c.exchange(b, Success)
	var got []State
	for i, change := range told {
		if i > 0 && change.From != told[i-1].To {
			t.Errorf("change %d is from %v, the one before to %v", i, change.From, told[i-1].To)
		}
		got = append(got, change.To)
	}
	if want := []State{Open, HalfOpen, Open, HalfOpen, Closed}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told %v; want %v", got, want)
	}
	if got := b.Last(); got != told[len(told)-1] || c.since(got.At) != 0 {
		t.Errorf("Last() = %+v; want the last that was told, now", got)
	}
}

// model is a Breaker that remembers everything.
type model struct {
	o        Options
	state    State
	at       time.Duration
	periods  int
	ends     []modelEnd
	inFlight int
	results  []bool
}

type modelEnd struct {
	tick int64
	bad  bool
}

func (m *model) to(s State, at time.Duration) {
	*m = model{o: m.o, state: s, at: at, periods: m.periods + 1}
}

func (m *model) admit(at time.Duration) bool {
	if m.state == Open && at-m.at >= m.o.OpenFor {
		m.to(HalfOpen, at)
	}
	if m.state == HalfOpen && m.inFlight+len(m.results) < m.o.Probes {
		m.inFlight++
		return true
	}
	return m.state == Closed
}

func (m *model) done(at time.Duration, o Outcome) {
	if m.state == HalfOpen {
		m.inFlight--
	}
	if o == Abandoned {
		return
	}
	if m.state == HalfOpen {
		m.results = append(m.results, o == Failure)
		bad := 0
		for _, r := range m.results {
			if r {
				bad++
			}
		}
		good := len(m.results) - bad
		if float64(bad)/float64(m.o.Probes) >= m.o.FailureRatio {
			m.to(Open, at)
		} else if float64(m.o.Probes-good)/float64(m.o.Probes) < m.o.FailureRatio {
			m.to(Closed, at)
		}
		return
	}
	tick := int64(at / (m.o.Window / 10))
	m.ends = append(m.ends, modelEnd{tick, o == Failure})
	all, bad := 0, 0
	for _, e := range m.ends {
		if e.tick > tick-10 {
			all++
			if e.bad {
				bad++
			}
		}
	}
	if o == Failure && all >= m.o.MinRequests && float64(bad)/float64(all) >= m.o.FailureRatio {
		m.to(Open, at)
	}
}

func TestBreakerAgreesWithAModelThatRemembersEverything(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		o := Options{
			FailureRatio: []float64{0.1, 0.3, 0.5, 0.7, 1}[r.IntN(5)],
			MinRequests:  1 + r.IntN(30),
			Window:       time.Duration(1+r.IntN(10)) * time.Second,
			OpenFor:      time.Hour, // longer than any probe lasts, so that the model needs no leases
			Probes:       1 + r.IntN(5),
		}
		b := New(o)
		m := &model{o: b.o}
		c := newClock(b)
		type admitted struct {
			Ticket
			period int
		}
		var busy []admitted
		bad := r.Float64()
		for step := range 3000 {
			at := c.since(b.start)
			switch r.IntN(10) {
			case 0:
				c.pass(time.Duration(r.ExpFloat64() * float64(300*time.Millisecond)))
			case 1:
				if r.IntN(20) == 0 {
					bad = r.Float64()
				}
				if b.State() == Open {
					c.pass(time.Duration(r.Int64N(int64(2 * time.Hour))))
				}
			case 2, 3, 4, 5:
				ticket, _, ok := b.Admit(c.now)
				if want := m.admit(at); ok != want {
					t.Fatalf("seed %d, step %d: Admit() = %v; the model says %v", seed, step, ok, want)
				}
				if ok {
					busy = append(busy, admitted{ticket, m.periods})
				}
			default:
				if len(busy) == 0 {
					continue
				}
				i := r.IntN(len(busy))
				one := busy[i]
				busy[i] = busy[len(busy)-1]
				busy = busy[:len(busy)-1]
				outcome := Success
				if r.IntN(10) == 0 {
					outcome = Abandoned
				} else if r.Float64() < bad {
					outcome = Failure
				}
				b.Done(c.now, one.Ticket, outcome)
				if one.period == m.periods {
					m.done(at, outcome)
				}
			}
			if b.State() != m.state {
				t.Fatalf("seed %d, step %d: it is %v; the model says %v", seed, step, b.State(), m.state)
			}
		}
	}
}

func TestBreakerUnderConcurrentUse(t *testing.T) {
	var (
		mu   sync.Mutex
		told []Change
		now  atomic.Int64
	)
	b := New(Options{MinRequests: 5, Probes: 2, OpenFor: time.Millisecond, Changed: func(c Change) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, c)
	}})
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			for range 5000 {
				at := b.start.Add(time.Duration(now.Add(int64(10 * time.Microsecond))))
				if ticket, _, ok := b.Admit(at); ok {
					b.Done(at, ticket, Outcome(r.IntN(3)))
				}
				b.Last()
				b.Recent(at)
			}
		})
	}
	group.Wait()
	for i, c := range told {
		if i > 0 && c.From != told[i-1].To {
			t.Fatalf("change %d is from %v, the one before to %v", i, c.From, told[i-1].To)
		}
	}
	if len(told) < 3 {
		t.Errorf("%d changes; want it to have opened and closed", len(told))
	}
}

func TestBreakerAllocatesNothing(t *testing.T) {
	closed, now := New(Options{}), time.Now()
	shut, c := opened(t, Options{})
	for name, f := range map[string]func(){
		"an exchange through a closed one": func() {
			t, _, _ := closed.Admit(now)
			closed.Done(now, t, Success)
		},
		"a refusal by an open one": func() { shut.Admit(c.now) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkExchange(b *testing.B) {
	breaker, now := New(Options{}), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		t, _, _ := breaker.Admit(now)
		breaker.Done(now, t, Success)
	}
}

func BenchmarkExchangeParallel(b *testing.B) {
	breaker, now := New(Options{}), time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			t, _, _ := breaker.Admit(now)
			breaker.Done(now, t, Success)
		}
	})
}

func BenchmarkRefusal(b *testing.B) {
	breaker, now := New(Options{MinRequests: 1}), time.Now()
	t, _, _ := breaker.Admit(now)
	breaker.Done(now, t, Failure)
	b.ReportAllocs()
	for b.Loop() {
		breaker.Admit(now)
	}
}

func TestRecoverClosesWhatOpenedBefore(t *testing.T) {
	b, c := opened(t, Options{OpenFor: 5 * time.Second})
	at := c.now
	if b.Recover(at.Add(-1), c.now) {
		t.Error("what was found out before it opened closed it")
	}
	want(t, b, Open, "after that")
	c.pass(time.Second)
	if !b.Refuses(c.now) || !b.Recover(at, c.now) || b.Refuses(c.now) {
		t.Error("it refused nothing, or Recover did not change that")
	}
	want(t, b, Closed, "after Recover")
	if got := b.Last(); got != (Change{From: Open, To: Closed, At: c.now}) {
		t.Errorf("Last() = %+v; want open to closed", got)
	}
	if b.Recover(at, c.now) {
		t.Error("a closed one was closed again")
	}

	b, c = halfOpened(t, Options{Probes: 1})
	ticket, _, _ := b.Admit(c.now)
	if !b.Refuses(c.now) || !b.Recover(c.now, c.now) {
		t.Error("a half-open one refuses nothing, or Recover did not close it")
	}
	b.Done(c.now, ticket, Failure)
	want(t, b, Closed, "after a probe of earlier has failed")
}

func TestBreakerRefusesNothingAfterItsTime(t *testing.T) {
	b, c := opened(t, Options{OpenFor: 5 * time.Second})
	c.pass(5 * time.Second)
	if b.Refuses(c.now) {
		t.Error("it refuses the exchange that would be its probe")
	}
}
