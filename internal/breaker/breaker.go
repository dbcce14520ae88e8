// Package breaker keeps an upstream in trouble from being hit harder: a Breaker stops exchanges that would most likely
// fail, a Budget bounds how many are tried again.
package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Options say when a Breaker opens and how it closes again.
type Options struct {
	FailureRatio float64       // of the exchanges within Window, from which on it opens; 0: 0.5; above 1: it never opens
	MinRequests  int           // that ended within Window before the ratio means anything; 0: 20
	Window       time.Duration // 0: 10 s
	OpenFor      time.Duration // until it is half-open; 0: 5 s
	Probes       int           // exchanges that decide while it is half-open; 0: 3

	// Changed is told of each change, once and in order, by whoever caused it and has to wait for it. It must not call
	// Admit or Done. nil: nobody is told.
	Changed func(Change)
}

// State is what a Breaker does with exchanges.
type State uint8

// The states of a Breaker.
const (
	Closed   State = iota // all go ahead
	Open                  // none does
	HalfOpen              // a few do, and decide
)

func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	default:
		return "half-open"
	}
}

// Outcome is what an exchange says about its upstream.
type Outcome uint8

// Abandoned is the zero Outcome, so that whoever forgets to say how it went says nothing about the upstream.
const (
	Abandoned Outcome = iota // nothing: the caller went away, or we did not get as far
	Success
	Failure
)

// Change is one from a State to another.
type Change struct {
	From, To           State
	At                 time.Time
	Requests, Failures int // that led to it; none did when time alone made it half-open, or Recover closed it
}

// Breaker is the circuit breaker of one upstream. It is safe for concurrent use. While it is closed it takes no lock and
// allocates nothing.
type Breaker struct {
	o       Options
	start   time.Time
	current atomic.Pointer[period]

	mu sync.Mutex // held to change current; guards the probes of a period that is half-open
}

// period is the time from one change to the next.
type period struct {
	Change
	_ [64]byte // what every exchange reads, apart from what every exchange writes

	ends ring // while closed: how exchanges ended, the first of a pair counting all, the second failures

	probes probes // while half-open
}

// probes counts exchanges that may go ahead in a half-open period. It belongs to Breaker.mu.
type probes struct {
	places              int // that are free
	lease               uint32
	leased              time.Time // when the last place was taken
	successes, failures int
}

// Ticket is the permission for one exchange. What becomes of the exchange counts only while the Breaker is in the period
// that gave it: one that hung from before the upstream recovered is no news.
type Ticket struct {
	period *period
	lease  uint32
}

// New returns a closed Breaker.
func New(o Options) *Breaker {
	if o.FailureRatio <= 0 {
		o.FailureRatio = 0.5
	}
	if o.MinRequests <= 0 {
		o.MinRequests = 20
	}
	if o.Window <= 0 {
		o.Window = 10 * time.Second
	}
	if o.OpenFor <= 0 {
		o.OpenFor = 5 * time.Second
	}
	if o.Probes <= 0 {
		o.Probes = 3
	}
	b := &Breaker{o: o, start: time.Now()}
	b.current.Store(b.period(Change{To: Closed, At: b.start}))
	return b
}

func (b *Breaker) period(c Change) *period {
	return &period{Change: c, ends: newRing(b.o.Window), probes: probes{places: b.o.Probes}}
}

// State returns the state. An open Breaker stays open, however long, until somebody asks it to admit an exchange.
func (b *Breaker) State() State { return b.current.Load().To }

// Last returns the last change. Of a Breaker that never changed, it is one from closed to closed when it was made.
func (b *Breaker) Last() Change { return b.current.Load().Change }

// Recent counts the exchanges that ended within the window, and the failures among them, in a closed Breaker; in others
// the probes that have ended.
func (b *Breaker) Recent(now time.Time) (requests, failures int) {
	p := b.current.Load()
	if p.To == Closed {
		return p.ends.sum(now.Sub(b.start))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.probes.successes + p.probes.failures, p.probes.failures
}

// Admit says whether an exchange may go ahead, and when not, after which time it is worth asking again. Whoever was
// admitted calls Done once.
func (b *Breaker) Admit(now time.Time) (t Ticket, retryAfter time.Duration, ok bool) {
	p := b.current.Load()
	switch p.To {
	case Closed:
		return Ticket{period: p}, 0, true
	case Open:
		if left := b.o.OpenFor - now.Sub(p.At); left > 0 {
			return Ticket{}, left, false
		}
	case HalfOpen:
	}
	return b.probe(now)
}

// probe admits an exchange to a Breaker that is half-open or is to become so.
func (b *Breaker) probe(now time.Time) (t Ticket, retryAfter time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.current.Load()
	switch p.To {
	case Closed:
		return Ticket{period: p}, 0, true
	case Open:
		if left := b.o.OpenFor - now.Sub(p.At); left > 0 {
			return Ticket{}, left, false
		}
		p = b.change(Change{From: Open, To: HalfOpen, At: now})
	case HalfOpen:
	}
	s := &p.probes
	if s.places == 0 {
		// Probes that have lasted as long as it was open are not waited for: they hang, or nobody ever calls Done. Should
		// they end after all, they count as well.
		left := b.o.OpenFor - now.Sub(s.leased)
		if left > 0 {
			return Ticket{}, min(left, time.Second), false
		}
		s.lease++
		s.places = b.o.Probes - s.successes - s.failures
	}
	s.places--
	s.leased = now
	return Ticket{period: p, lease: s.lease}, 0, true
}

// Refuses reports whether exchanges are refused for lack of time since the last change: all of them, or those beside the
// probes. After Options.OpenFor, the next exchange goes ahead in any case.
func (b *Breaker) Refuses(now time.Time) bool {
	p := b.current.Load()
	return p.To != Closed && now.Sub(p.At) < b.o.OpenFor
}

// Recover closes a Breaker that has not changed since. Something other than exchanges has found out that what made them fail
// is over. Admitted probes do not count any more. It reports whether anything changed.
func (b *Breaker) Recover(since, now time.Time) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.current.Load()
	if p.To == Closed || p.At.After(since) {
		return false
	}
	b.change(Change{From: p.To, To: Closed, At: now})
	return true
}

// Done says what became of an exchange that was admitted with t. It takes the zero Ticket, and does nothing with it.
func (b *Breaker) Done(now time.Time, t Ticket, o Outcome) {
	p := t.period
	if p == nil || p != b.current.Load() {
		return
	}
	if p.To == HalfOpen {
		b.decide(now, t, o)
		return
	}
	switch o {
	case Success:
		p.ends.add(now.Sub(b.start), oneFirst)
	case Failure:
		p.ends.add(now.Sub(b.start), oneFirst+oneSecond)
		requests, failures := p.ends.sum(now.Sub(b.start))
		if requests >= b.o.MinRequests && b.tooMany(failures, requests) {
			b.open(p, Change{From: Closed, To: Open, At: now, Requests: requests, Failures: failures})
		}
	case Abandoned:
	}
}

// tooMany compares by division: the quotient is the float nearest to the ratio that people wrote as a decimal.
func (b *Breaker) tooMany(failures, requests int) bool {
	return float64(failures)/float64(requests) >= b.o.FailureRatio
}

func (b *Breaker) open(p *period, c Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current.Load() == p {
		b.change(c)
	}
}

// decide counts a probe. The ratio holds for probes as for all others, and once it is certain on which side of it they
// end up, the rest is not waited for.
func (b *Breaker) decide(now time.Time, t Ticket, o Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := t.period
	if p != b.current.Load() {
		return
	}
	s := &p.probes
	switch o {
	case Abandoned:
		if t.lease == s.lease {
			s.places++
		}
		return
	case Success:
		s.successes++
	case Failure:
		s.failures++
	}
	// A probe of an earlier lease has ended in place of one of this lease.
	s.places = min(s.places, b.o.Probes-s.successes-s.failures)
	c := Change{From: HalfOpen, At: now, Requests: s.successes + s.failures, Failures: s.failures}
	switch {
	case b.tooMany(s.failures, b.o.Probes):
		c.To = Open
	case !b.tooMany(b.o.Probes-s.successes, b.o.Probes):
		c.To = Closed
	default:
		return
	}
	b.change(c)
}

// change begins a new period. The caller holds mu.
func (b *Breaker) change(c Change) *period {
	p := b.period(c)
	b.current.Store(p)
	if b.o.Changed != nil {
		b.o.Changed(c)
	}
	return p
}
