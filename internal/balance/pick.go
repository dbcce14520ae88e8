package balance

import (
	"math/bits"
	"time"
)

// Pick chooses an endpoint for an exchange that has tried those in tried. It prefers endpoints that are in and were not
// tried, then the tried ones among those. forced tells that it found none in and chose among those that are out, drained
// ones last. It returns nil only when there are no endpoints at all. The caller calls Begin on the endpoint.
func (s *Set[T]) Pick(now time.Time, tried []*Endpoint[T]) (e *Endpoint[T], forced bool) {
	l := s.list.Load()
	switch len(l.all) {
	case 0:
		return nil, false
	case 1:
		e = l.all[0].Endpoint
		return e, e.rank(s.at(now), nil) != rankIn
	}
	at := s.at(now)
	switch s.o.Policy {
	case RoundRobin:
		e = s.inTurn(l, at, tried)
	case First:
		e = s.inOrder(l, at, tried)
	case LeastRequests:
	}
	if e != nil {
		return e, false
	}
	return s.ofTwo(l, at, tried)
}

// Other reports whether there is an endpoint that is in and is not in tried.
func (s *Set[T]) Other(now time.Time, tried []*Endpoint[T]) bool {
	l, at := s.list.Load(), s.at(now)
	for i := range l.tiers {
		if l.tiers[i].in(at, tried) {
			return true
		}
	}
	return false
}

// below returns a random number less than n.
func (s *Set[T]) below(n uint64) uint64 {
	hi, _ := bits.Mul64(s.random(), n)
	return hi
}

// starts decides by chance whether an endpoint that may be in its slow start takes this exchange.
func (s *Set[T]) starts(e *Endpoint[T], at int64) bool {
	share := e.share(at)
	return share == whole || s.below(whole) < share
}

// ofTwo chooses two by weight, and of these the first, unless the second would, with this exchange, still have no more
// exchanges for its weight than the first has without. So weights hold while there is little to do as well as when there
// is much.
func (s *Set[T]) ofTwo(l *list[T], at int64, tried []*Endpoint[T]) (e *Endpoint[T], forced bool) {
	a, best := s.draw(l, at, tried, nil)
	b, rank := s.draw(l, at, tried, a)
	if b != nil && rank == best && b.spec.Tier == a.spec.Tier && s.freer(b, a, at) {
		a = b
	}
	return a.Endpoint, best >= rankOut
}

func (s *Set[T]) freer(b, a *entry[T], at int64) bool {
	return float64(b.outstanding.Load()+1)*float64(a.effective(at)) <= float64(a.outstanding.Load())*float64(b.effective(at))
}

// few is how many endpoints are looked at one by one sooner than at random.
const few = 2

// draw chooses one by weight among those of the best rank and, in that, of the first tier; but never not. It returns nil
// when not is all there is.
func (s *Set[T]) draw(l *list[T], at int64, tried []*Endpoint[T], not *entry[T]) (*entry[T], rank) {
	// Where there are many, most are in. Drawing from all until one of them comes up is the same as drawing from those.
	if t := &l.tiers[0]; len(t.entries) > few {
		for range 4 {
			e := t.atWeight(s.below(t.sum()))
			if e != not && e.rank(at, tried) == rankIn && s.starts(e.Endpoint, at) {
				return e, rankIn
			}
		}
	}
	var (
		chosen *entry[T]
		best   = rankNone
		sum    uint64
	)
	for i := range l.all {
		e := &l.all[i]
		if chosen != nil && best == rankIn && e.spec.Tier != chosen.spec.Tier {
			break
		}
		if e == not {
			continue
		}
		r := e.rank(at, tried)
		if r > best || r == best && e.spec.Tier != chosen.spec.Tier {
			continue
		}
		w := e.effective(at)
		if r < best {
			chosen, best, sum = e, r, w
			continue
		}
		// Each one replaces those before with its share of the weight so far: in the end each was as likely as it weighs.
		if sum += w; s.below(sum) < w {
			chosen = e
		}
	}
	return chosen, best
}

// inTurn goes round the first tier that has an endpoint that is in and was not tried. It returns nil when none has, or
// when one has and, by chance, none that is in its slow start took the exchange.
func (s *Set[T]) inTurn(l *list[T], at int64, tried []*Endpoint[T]) *Endpoint[T] {
	for i := range l.tiers {
		t := &l.tiers[i]
		// Those that are out give up their turn, so that it does not always go to the same one after them.
		for n := range t.turns() {
			if n == few && !t.in(at, tried) {
				break
			}
			if e := t.atTurn(s.turn.Add(1) - 1).Endpoint; e.rank(at, tried) == rankIn && s.starts(e, at) {
				return e
			}
		}
		if t.in(at, tried) {
			return nil
		}
	}
	return nil
}

// in reports whether there is an endpoint that is in and was not tried.
func (t *tier[T]) in(at int64, tried []*Endpoint[T]) bool {
	for i := range t.entries {
		if t.entries[i].rank(at, tried) == rankIn {
			return true
		}
	}
	return false
}

// inOrder returns the first endpoint that is in and was not tried, nil when there is none. One that has come back gets
// its share only, and those after it the rest, of whatever tier.
func (s *Set[T]) inOrder(l *list[T], at int64, tried []*Endpoint[T]) (first *Endpoint[T]) {
	for i := range l.all {
		e := l.all[i].Endpoint
		if e.rank(at, tried) != rankIn {
			continue
		}
		if s.starts(e, at) {
			return e
		}
		if first == nil {
			first = e
		}
	}
	return first
}
