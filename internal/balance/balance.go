// Package balance chooses among the endpoints of an upstream, and puts those aside that fail.
package balance

import (
	"cmp"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Policy is how a Set chooses among endpoints that are in.
type Policy uint8

// The policies.
const (
	LeastRequests Policy = iota // of two random ones, that with fewer exchanges for its weight
	RoundRobin                  // in turn, by weight
	First                       // the first in order
)

// Options say how a Set chooses and when it puts an endpoint aside.
type Options[T any] struct {
	Policy Policy

	// Open makes what a new endpoint carries as Data. It must not call methods of the Set. nil: the zero T.
	Open func(id string) T

	// SlowStart is how long the share of an endpoint grows after it came back, or joined others. 0: 30 s; less than 0:
	// it has its whole share at once.
	SlowStart time.Duration

	EjectAfter int           // failures in a row; 0: 5; less than 0: none is ever ejected
	EjectFor   time.Duration // the first time; doubled each time after; 0: 5 s
	EjectMax   time.Duration // the longest time; an endpoint that stays in as long begins with EjectFor again; 0: 5 min
	EjectShare float64       // of a tier's endpoints that may be ejected at once, rounded up; 0: 0.5; all when a later tier stands by; one always stays

	// Ejected is told of each ejection, once, by the exchange that caused it and has to wait for it. It must not call
	// methods of the Set. nil: nobody is told.
	Ejected func(e *Endpoint[T], d time.Duration)
}

// Spec is an endpoint as configuration or DNS describe it.
type Spec struct {
	ID     string
	Tier   int // lower ones are used as long as one of their endpoints is in
	Weight int // within the tier; 0 is as little as can be beside others, and the same for all when all have it
}

// Set is the endpoints of one upstream. It is safe for concurrent use. Choosing takes no lock and allocates nothing.
type Set[T any] struct {
	o      Options[T]
	start  time.Time
	random func() uint64
	list   atomic.Pointer[list[T]]

	mu      sync.Mutex          // held to change list, to drain and resume, and to eject
	drained map[string]struct{} // IDs, those of endpoints that left included: they may come back
	pardons int64               // when ejections were last cut short

	_    [64]byte
	turn atomic.Uint64 // of RoundRobin
}

// New returns a Set without endpoints.
func New[T any](o Options[T]) *Set[T] {
	if o.SlowStart == 0 {
		o.SlowStart = 30 * time.Second
	}
	if o.EjectAfter == 0 {
		o.EjectAfter = 5
	}
	if o.EjectFor <= 0 {
		o.EjectFor = 5 * time.Second
	}
	if o.EjectMax <= 0 {
		o.EjectMax = 5 * time.Minute
	}
	if o.EjectShare <= 0 {
		o.EjectShare = 0.5
	}
	s := &Set[T]{o: o, start: time.Now(), random: rand.Uint64, drained: make(map[string]struct{}), pardons: never}
	s.list.Store(new(list[T]))
	return s
}

// at is now on the clock of the Set.
func (s *Set[T]) at(now time.Time) int64 { return int64(now.Sub(s.start)) }

// Update makes specs the endpoints. Those that were there before, by ID, keep their state and their Data. It returns
// those that left: they are not chosen any more, what has begun with them goes on, and it is for the caller to let go
// of their Data. Of specs with the same ID, the lowest tier holds, and weights within it add up.
func (s *Set[T]) Update(now time.Time, specs []Spec) (left []*Endpoint[T]) {
	specs = merged(specs)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.list.Load()
	known := make(map[string]*Endpoint[T], len(old.all))
	for i := range old.all {
		known[old.all[i].ID] = old.all[i].Endpoint
	}
	endpoints := make([]*Endpoint[T], len(specs))
	for i, spec := range specs {
		e := known[spec.ID]
		delete(known, spec.ID)
		if e == nil {
			e = s.join(spec.ID)
			if len(old.all) > 0 {
				e.back.Store(s.at(now))
			}
		}
		endpoints[i] = e
	}
	s.list.Store(newList(specs, endpoints))
	for i := range old.all {
		if e := old.all[i].Endpoint; known[e.ID] == e {
			left = append(left, e)
		}
	}
	return left
}

// join makes an endpoint. The caller holds mu.
func (s *Set[T]) join(id string) *Endpoint[T] {
	e := &Endpoint[T]{ID: id, set: s}
	e.back.Store(never)
	e.until.Store(never)
	if _, ok := s.drained[id]; ok {
		e.out.Store(drained)
	}
	if s.o.Open != nil {
		e.Data = s.o.Open(id)
	}
	return e
}

// merged returns specs by tier, each ID once.
func merged(specs []Spec) []Spec {
	sorted := slices.Clone(specs)
	slices.SortStableFunc(sorted, func(a, b Spec) int { return cmp.Compare(a.Tier, b.Tier) })
	at := make(map[string]int, len(sorted))
	all := sorted[:0]
	for _, spec := range sorted {
		i, twice := at[spec.ID]
		switch {
		case !twice:
			at[spec.ID] = len(all)
			all = append(all, spec)
		case all[i].Tier == spec.Tier:
			all[i].Weight += spec.Weight
		}
	}
	return all
}

// Drain puts the endpoint of that ID aside until Resume, also should it leave and join again meanwhile. It reports
// whether there is one.
func (s *Set[T]) Drain(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.list.Load().find(id)
	if e == nil {
		return false
	}
	s.drained[id] = struct{}{}
	e.out.Or(drained)
	return true
}

// Resume takes back a Drain. It reports whether there was one.
func (s *Set[T]) Resume(now time.Time, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.drained[id]; !ok {
		return false
	}
	delete(s.drained, id)
	if e := s.list.Load().find(id); e != nil {
		e.restore(now, drained)
	}
	return true
}

// Drained returns the IDs that Drain put aside, sorted.
func (s *Set[T]) Drained() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.drained))
}

// KeepDrained is Drain for endpoints that are there or may come, as those of a Set that this one replaces.
func (s *Set[T]) KeepDrained(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.drained[id] = struct{}{}
		if e := s.list.Load().find(id); e != nil {
			e.out.Or(drained)
		}
	}
}

// Endpoints goes through the endpoints as they are at its beginning, by tier and else in the order of Update.
func (s *Set[T]) Endpoints() iter.Seq2[Spec, *Endpoint[T]] {
	l := s.list.Load()
	return func(yield func(Spec, *Endpoint[T]) bool) {
		for i := range l.all {
			if !yield(l.all[i].spec, l.all[i].Endpoint) {
				return
			}
		}
	}
}

// Len counts the endpoints, those that are aside included.
func (s *Set[T]) Len() int { return len(s.list.Load().all) }

// eject puts e aside after too many failures, unless too many are aside already.
func (s *Set[T]) eject(e *Endpoint[T], at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at < e.until.Load() {
		return
	}
	l := s.list.Load()
	tier, member := l.tierOf(e)
	var all, ejected, others int // of its tier, of its tier, of any
	standby := false             // a later tier takes what this one no longer does
	for i := range l.all {
		x, level := l.all[i].Endpoint, l.all[i].spec.Tier
		out := x.out.Load()
		if out&drained != 0 {
			continue
		}
		if level == tier {
			all++
		}
		switch {
		case at >= x.until.Load():
			if out == 0 && x != e {
				others++
				standby = standby || level > tier
			}
		case level == tier:
			ejected++
		}
	}
	if !member || others == 0 || !standby && float64(ejected) >= s.o.EjectShare*float64(all) {
		return
	}
	if at-e.until.Load() >= int64(s.o.EjectMax) {
		e.ejections = 0
	}
	d := s.o.EjectFor
	for range e.ejections {
		if d *= 2; d >= s.o.EjectMax {
			break
		}
	}
	d = min(d, s.o.EjectMax)
	e.ejections++
	// When it is back, the first failure sends it away again, and the first success counts as recovery.
	e.failures.Store(int32(s.o.EjectAfter - 1))
	e.spell.Add(1)
	e.until.Store(at + int64(d))
	if s.o.Ejected != nil {
		s.o.Ejected(e, d)
	}
}

// pardon cuts ejections short when e fails, which is the last one that is in: the others have had their time out, and may
// have recovered. Where all are down that helps nobody, so it does it no more than once in EjectFor, and does not let the
// next ejection be longer for it.
func (s *Set[T]) pardon(e *Endpoint[T], at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.out.Load() != 0 || at < e.until.Load() || at < s.pardons+int64(s.o.EjectFor) {
		return
	}
	l := s.list.Load()
	for i := range l.all {
		if x := l.all[i].Endpoint; x != e && x.out.Load() == 0 && at >= x.until.Load() {
			return
		}
	}
	for i := range l.all {
		if x := l.all[i].Endpoint; x.out.Load() == 0 && at < x.until.Load() {
			x.pardon(at)
			s.pardons = at
		}
	}
}
