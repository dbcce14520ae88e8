package admission

import (
	"crypto/sha256"
	"hash/maphash"
	"math/bits"
	"sync"
	"time"
)

const (
	// DefaultKeys is how many keys are told apart where nothing else is asked for: about 8 MB at worst.
	DefaultKeys = 64 << 10

	maxShards = 64 // locks: enough that two exchanges rarely want the same one
	spares    = 16 // buckets per shard, for the keys that find no room
	looks     = 8  // slots that a newcomer looks at, so that its cost is bounded

	// A bucket that has been full for that long is given to a newcomer even while
	// there is room for one more: the table follows the number of callers down.
	unused = time.Minute
)

// table holds one bucket per key, and never more than a fixed number of them,
// however many keys there are. What the buckets are is V's matter; the table
// knows when each is full again.
//
// Only a full bucket is ever forgotten. It says nothing that a new one would not
// say, so whoever invents keys cannot give anybody a second burst, himself
// included, by pushing a bucket out. A newcomer looks at a few slots and takes
// the one that has been full for longest; when none is, and there is no more
// room, it shares a bucket with other such keys, chosen by a hash that callers
// cannot foresee. It gets a bucket of its own as soon as there is one, and takes
// the shared one's debt along. What an attacker can spoil is therefore the
// shared buckets, for those who arrive during the attack; never the bucket of a
// caller who had one.
type table[V any] struct {
	seed   maphash.Seed
	start  time.Time
	shards []shard[V]
}

// shard is the part of a table that one lock guards.
type shard[V any] struct {
	mu     sync.Mutex // guards the fields below, and what its slots hold
	index  map[string]int32
	slots  []bucket[V]
	most   int
	hand   int // the slot at which the next newcomer begins to look
	shared [spares]bucket[V]
	_      [64]byte // the next shard's lock is on another cache line
}

// bucket is one slot of a table.
type bucket[V any] struct {
	v    V
	full int64  // when the bucket is full again, by table.now; forgettable from then on
	name string // that it belongs to; it means nothing in a shared one
}

func newTable[V any](most int) *table[V] {
	if most <= 0 {
		most = DefaultKeys
	}
	n := min(1<<bits.Len(uint(most/256)), maxShards)
	t := &table[V]{seed: maphash.MakeSeed(), start: time.Now(), shards: make([]shard[V], n)}
	for i := range t.shards {
		t.shards[i].most = max(most/n, 1)
		t.shards[i].index = make(map[string]int32)
	}
	return t
}

// now is the time in the table: nanoseconds since it was made, by the monotonic clock.
func (t *table[V]) now() int64 { return int64(time.Since(t.start)) }

// place returns where name belongs: its shard, and the number of the shared bucket it may have to use.
func (t *table[V]) place(name []byte) (i int, spare int) {
	h := maphash.Bytes(t.seed, name)
	return int(h) & (len(t.shards) - 1), int(h>>32) % spares
}

// find returns the slot for name: its own, or the shared one when there is no
// room for it. Whoever calls it holds mu, and uses the slot before giving it up.
// It allocates only for a name that gets a slot.
func (s *shard[V]) find(name []byte, spare int, now int64) (b *bucket[V], own bool) {
	if i, ok := s.index[string(name)]; ok {
		return &s.slots[i], true
	}
	return s.insert(name, spare, now)
}

func (s *shard[V]) insert(name []byte, spare int, now int64) (b *bucket[V], own bool) {
	best := -1
	for range min(looks, len(s.slots)) {
		if s.hand >= len(s.slots) {
			s.hand = 0
		}
		if best < 0 || s.slots[s.hand].full < s.slots[best].full {
			best = s.hand
		}
		s.hand++
	}
	room := len(s.slots) < s.most
	switch {
	case best >= 0 && (s.slots[best].full <= now-int64(unused) || !room && s.slots[best].full <= now):
		delete(s.index, s.slots[best].name)
	case room:
		best = len(s.slots)
		s.slots = append(s.slots, bucket[V]{})
	default:
		return &s.shared[spare], false
	}
	b = &s.slots[best]
	*b = bucket[V]{name: string(name), full: s.shared[spare].full}
	s.index[b.name] = int32(best)
	return b, true
}

// level returns how many keys have a bucket of their own, and how many can.
func (t *table[V]) level() (used, most int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		used += len(s.slots)
		most += s.most
		s.mu.Unlock()
	}
	return used, most
}

// each calls f with every slot, the shared ones included, a shard at a time: first
// with the shard's number, its lock held.
func (t *table[V]) each(begin func(shard int), f func(*bucket[V])) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		begin(i)
		for j := range s.slots {
			f(&s.slots[j])
		}
		for j := range s.shared {
			f(&s.shared[j])
		}
		s.mu.Unlock()
	}
}

const maxNameBytes = 64

// nameOf returns what key is remembered by: itself, or its digest when it is so
// long (a header's value may be 64 KiB) that the number of keys would not bound the
// memory. A key as long as a digest is digested too, so that no key can pass
// for another's digest. The name is valid as long as key and digest are.
func nameOf(key []byte, digest *[sha256.Size]byte) []byte {
	if len(key) <= maxNameBytes && len(key) != sha256.Size {
		return key
	}
	*digest = sha256.Sum256(key)
	return digest[:]
}
