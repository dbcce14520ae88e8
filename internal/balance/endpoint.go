package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// Outcome is what a try says about its endpoint.
type Outcome uint8

// Abandoned is the zero Outcome, so that whoever forgets to say how it went says nothing about the endpoint.
const (
	Abandoned Outcome = iota // nothing: the caller went away, or we did not get as far
	Success
	Failure // to connect, or an answer that only a server in trouble gives
)

// Why an endpoint is out, besides ejection, which ends by itself.
const (
	drained uint32 = 1 << iota
	unhealthy
)

// never is long before the clock of any Set began. Differences with it do not overflow.
const never = math.MinInt64 / 2

// Endpoint is an address of an upstream, or whatever else its ID says. It belongs to one Set. It is safe for concurrent
// use.
type Endpoint[T any] struct {
	ID   string
	Data T // of the Set's owner

	set *Set[T]

	// Read by every choice, written seldom.
	out   atomic.Uint32 // drained, unhealthy
	until atomic.Int64  // ejected until then, on the clock of the Set
	back  atomic.Int64  // healthy or resumed since then, or joined; ejection is in until
	spell atomic.Uint32 // how often it was ejected

	ejections int // in a row, which double the time; belongs to Set.mu

	_           [64]byte
	outstanding atomic.Int64
	failures    atomic.Int32 // in a row
}

// Try is one exchange's use of an Endpoint.
type Try[T any] struct {
	e     *Endpoint[T]
	spell uint32
}

// Begin counts an exchange with e. The caller calls End on what it returns, once.
func (e *Endpoint[T]) Begin() Try[T] {
	e.outstanding.Add(1)
	return Try[T]{e, e.spell.Load()}
}

// End says how it went. Tries that began before the last ejection of the endpoint are no news and only end. The zero Try
// may end as well.
func (t Try[T]) End(now time.Time, o Outcome) {
	e := t.e
	if e == nil {
		return
	}
	e.outstanding.Add(-1)
	if o == Abandoned || t.spell != e.spell.Load() {
		return
	}
	if o == Success {
		if e.failures.Load() != 0 {
			e.failures.Store(0)
		}
		return
	}
	if after := e.set.o.EjectAfter; after > 0 && int(e.failures.Add(1)) >= after {
		e.set.eject(e, e.set.at(now))
		e.set.pardon(e, e.set.at(now))
	}
}

// SetHealthy takes in the result of checks that are made apart from exchanges. Endpoints begin healthy. It reports
// whether that changed anything.
func (e *Endpoint[T]) SetHealthy(now time.Time, healthy bool) (changed bool) {
	if healthy {
		return e.restore(now, unhealthy)
	}
	return e.out.Or(unhealthy)&unhealthy == 0
}

// Recover ends an ejection early: something other than exchanges has found out that what made them fail is over. Its time
// does not make the next one longer. It reports whether there was one.
func (e *Endpoint[T]) Recover(now time.Time) (changed bool) {
	s := e.set
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.at(now)
	if at >= e.until.Load() {
		return false
	}
	e.pardon(at)
	return true
}

// pardon ends an ejection. The caller holds Set.mu.
func (e *Endpoint[T]) pardon(at int64) {
	e.until.Store(at)
	e.ejections = max(0, e.ejections-1)
}

// restore takes back a reason for being out, and begins a slow start.
func (e *Endpoint[T]) restore(now time.Time, reason uint32) (changed bool) {
	if e.out.Load()&reason == 0 {
		return false
	}
	e.back.Store(e.set.at(now))
	return e.out.And(^reason)&reason != 0
}

// State is why an endpoint is chosen or not.
type State uint8

// The states of an endpoint. Of several that hold, the last one here is told.
const (
	In State = iota
	Ejected
	Unhealthy
	Drained
)

func (s State) String() string {
	switch s {
	case In:
		return "in"
	case Ejected:
		return "ejected"
	case Unhealthy:
		return "unhealthy"
	default:
		return "drained"
	}
}

// Status is how an Endpoint is.
type Status struct {
	State       State
	Outstanding int       // exchanges that use it
	Failures    int       // in a row
	Share       float64   // of its weight that counts, less than 1 during a slow start
	Until       time.Time // when the ejection ends; zero when not ejected
}

// Status returns how e is.
func (e *Endpoint[T]) Status(now time.Time) Status {
	at, out, until := e.set.at(now), e.out.Load(), e.until.Load()
	s := Status{
		Outstanding: int(e.outstanding.Load()),
		Failures:    int(e.failures.Load()),
		Share:       float64(e.share(at)) / whole,
	}
	if at < until {
		s.State, s.Until = Ejected, e.set.start.Add(time.Duration(until))
	}
	if out&unhealthy != 0 {
		s.State = Unhealthy
	}
	if out&drained != 0 {
		s.State = Drained
	}
	return s
}

// Outstanding counts the exchanges that use e.
func (e *Endpoint[T]) Outstanding() int { return int(e.outstanding.Load()) }

// whole is the share of an endpoint that is not in its slow start, least the one that a slow start begins with.
const (
	whole = 1 << 16
	least = whole / 10
)

// share is how much of its weight counts.
func (e *Endpoint[T]) share(at int64) uint64 {
	slow, since := int64(e.set.o.SlowStart), at-max(e.back.Load(), e.until.Load())
	if since >= slow {
		return whole
	}
	return max(least, uint64(whole*float64(max(since, 0))/float64(slow)))
}

// rank orders endpoints by how gladly they are chosen. Those that the exchange has tried come after their like.
type rank uint8

const (
	rankIn rank = iota
	rankInTried
	rankOut
	rankOutTried
	rankDrained
	rankDrainedTried
	rankNone
)

func (e *Endpoint[T]) rank(at int64, tried []*Endpoint[T]) rank {
	r := rankIn
	if out := e.out.Load(); out != 0 || at < e.until.Load() {
		r = rankOut
		if out&drained != 0 {
			r = rankDrained
		}
	}
	for _, t := range tried {
		if t == e {
			return r + 1
		}
	}
	return r
}
