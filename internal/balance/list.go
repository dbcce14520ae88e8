package balance

import "slices"

// list is the endpoints of a Set at a time. It does not change.
type list[T any] struct {
	all   []entry[T] // by tier
	tiers []tier[T]
}

// entry is an endpoint with what the list it is in says about it.
type entry[T any] struct {
	*Endpoint[T]
	spec   Spec
	weight uint64 // scaled, at least 1
}

// effective is the weight that counts at a time.
func (e *entry[T]) effective(at int64) uint64 { return e.weight * e.share(at) }

// tier is the endpoints that are alike in preference.
type tier[T any] struct {
	entries  []entry[T] // part of list.all
	upTo     []uint64   // sums of the weights up to and with each entry; nil when all weigh the same
	schedule []uint16   // a round of RoundRobin, as places in entries; nil when each has one turn
}

const (
	weightUnit = 256     // of a weight of 1, so that a weight of 0 can be less
	maxWeight  = 1 << 28 // so that sums of scaled weights and shares stay within 64 bits
	maxTurns   = 1 << 10 // in a schedule, apart from the one that each endpoint has at least
)

func newList[T any](specs []Spec, endpoints []*Endpoint[T]) *list[T] {
	l := &list[T]{all: make([]entry[T], len(specs))}
	for i, spec := range specs {
		w := max(min(spec.Weight, maxWeight), 0)
		l.all[i] = entry[T]{endpoints[i], spec, max(uint64(w)*weightUnit, 1)}
	}
	for i := 0; i < len(l.all); {
		n := i + 1
		for n < len(l.all) && l.all[n].spec.Tier == l.all[i].spec.Tier {
			n++
		}
		l.tiers = append(l.tiers, newTier(l.all[i:n:n]))
		i = n
	}
	return l
}

func newTier[T any](entries []entry[T]) tier[T] {
	t := tier[T]{entries: entries}
	if !slices.ContainsFunc(entries, func(e entry[T]) bool { return e.weight != entries[0].weight }) {
		return t
	}
	var sum uint64
	for i := range entries {
		sum += entries[i].weight
		t.upTo = append(t.upTo, sum)
	}
	t.schedule = schedule(entries, sum)
	return t
}

// schedule spreads the turns of a round as evenly as they go: each turn is for the entry that is owed most.
func schedule[T any](entries []entry[T], sum uint64) []uint16 {
	if len(entries) > 1<<16 {
		return nil
	}
	var unit uint64
	for i := range entries {
		unit = gcd(unit, entries[i].weight)
	}
	turns, total := make([]int, len(entries)), 0
	for i := range entries {
		if sum/unit <= maxTurns {
			turns[i] = int(entries[i].weight / unit)
		} else {
			turns[i] = max(1, int(float64(entries[i].weight)*maxTurns/float64(sum)+0.5))
		}
		total += turns[i]
	}
	round, owed := make([]uint16, total), make([]int, len(entries))
	for turn := range round {
		best := 0
		for i := range owed {
			owed[i] += turns[i]
			if owed[i] > owed[best] {
				best = i
			}
		}
		owed[best] -= total
		round[turn] = uint16(best)
	}
	return round
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// find returns the endpoint with that ID, or nil.
func (l *list[T]) find(id string) *Endpoint[T] {
	for i := range l.all {
		if l.all[i].ID == id {
			return l.all[i].Endpoint
		}
	}
	return nil
}

// tierOf returns the tier that e is in, and whether it is in any.
func (l *list[T]) tierOf(e *Endpoint[T]) (tier int, member bool) {
	for i := range l.all {
		if l.all[i].Endpoint == e {
			return l.all[i].spec.Tier, true
		}
	}
	return 0, false
}

// turns is how many turns a round has.
func (t *tier[T]) turns() int {
	if t.schedule == nil {
		return len(t.entries)
	}
	return len(t.schedule)
}

// atTurn returns the entry whose turn it is.
func (t *tier[T]) atTurn(n uint64) *entry[T] {
	n %= uint64(t.turns())
	if t.schedule == nil {
		return &t.entries[n]
	}
	return &t.entries[t.schedule[n]]
}

// sum is the weight of all entries.
func (t *tier[T]) sum() uint64 {
	if t.upTo == nil {
		return uint64(len(t.entries))
	}
	return t.upTo[len(t.upTo)-1]
}

// atWeight returns the entry that x, less than sum, falls on.
func (t *tier[T]) atWeight(x uint64) *entry[T] {
	if t.upTo == nil {
		return &t.entries[x]
	}
	i, exactly := slices.BinarySearch(t.upTo, x)
	if exactly {
		i++
	}
	return &t.entries[i]
}
