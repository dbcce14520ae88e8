package admission

import (
	"crypto/sha256"
	"math"
	"sync/atomic"
	"time"
)

// gcra is the generic cell rate algorithm: a token bucket that is one number, the
// time at which it will be full again. A rate.Limiter takes six words and a lock
// of its own; with a bucket for every caller that is most of the memory, and the
// shard's lock is there anyway. Bucket, of which there are few, keeps the limiter.
//
// Times are whole nanoseconds: exact to a tenth of a percent up to a million per second.
type gcra struct {
	interval int64 // ns in which a token comes; 0: everything is admitted
	depth    int64 // ns in which an empty bucket fills
}

func newGCRA(perSecond float64, burst int) gcra {
	if !(perSecond > 0) {
		return gcra{}
	}
	// Rounded up: what is told to wait shall not come too early. The bounds, 36
	// years for a token and 73 for a bucket, keep the sums below from overflowing.
	interval := int64(min(max(math.Ceil(float64(time.Second)/perSecond), 1), 1<<60))
	return gcra{interval: interval, depth: min(int64(max(burst, 1)), (1<<61)/interval) * interval}
}

// admit takes a token from a bucket that is full at full. It returns when the
// bucket is full thereafter, or how long it takes until there is a token.
func (g gcra) admit(now, full int64) (after, wait int64) {
	after = max(full, now) + g.interval
	if wait = after - now - g.depth; wait > 0 {
		return full, wait
	}
	return after, 0
}

// convert returns when a bucket that keeps its debt in tokens is full by another rate.
func (g gcra) convert(to gcra, now, full int64) int64 {
	if full <= now || g.interval == 0 || to.interval == 0 {
		return min(full, now)
	}
	owed := float64(full-now) / float64(g.interval) * float64(to.interval)
	return now + int64(min(owed, float64(to.depth)))
}

// Keys is a token bucket for each key, in memory that is bounded however many keys
// there are; see table for what becomes of those that find no room. All methods
// may be called concurrently. Admit allocates nothing for a key that it knows.
type Keys struct {
	table    *table[struct{}]
	limited  atomic.Bool
	rates    []gcra // one for each shard, guarded by the shard's lock: a rate changes together with the buckets
	homeless atomic.Uint64
}

// NewKeys returns buckets that are full, for at most the given number of keys; 0
// is DefaultKeys. Rate and burst of each bucket are as for NewBucket.
func NewKeys(perSecond float64, burst int, most int) *Keys {
	k := &Keys{table: newTable[struct{}](most)}
	k.rates = make([]gcra, len(k.table.shards))
	k.Reconfigure(perSecond, burst)
	return k
}

// Admit takes a token from the key's bucket. When there is none it takes nothing
// and returns the time after which one will be there, provided that nobody else
// comes for it. It does not keep key.
func (k *Keys) Admit(key []byte) (retryAfter time.Duration, ok bool) {
	if !k.limited.Load() {
		return 0, true
	}
	var digest [sha256.Size]byte
	name := nameOf(key, &digest)
	i, spare := k.table.place(name)
	s := &k.table.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	rate := k.rates[i]
	if rate.interval == 0 {
		return 0, true
	}
	now := k.table.now() // behind the lock: no bucket sees time go backwards
	b, own := s.find(name, spare, now)
	if !own {
		k.homeless.Add(1)
	}
	var wait int64
	b.full, wait = rate.admit(now, b.full)
	return time.Duration(wait), wait == 0
}

// Reconfigure changes rate and burst. Each bucket keeps what it owes, as far as
// the new burst allows: an empty one stays empty, and a reload hands nobody a second
// burst. Switched off and on again, all are full.
func (k *Keys) Reconfigure(perSecond float64, burst int) {
	to, now := newGCRA(perSecond, burst), k.table.now()
	var from gcra
	k.table.each(func(i int) {
		from, k.rates[i] = k.rates[i], to
	}, func(b *bucket[struct{}]) {
		b.full = from.convert(to, now, b.full)
	})
	k.limited.Store(to.interval > 0)
}

// Len returns how many keys have a bucket of their own.
func (k *Keys) Len() int {
	used, _ := k.table.level()
	return used
}

// Level returns how many keys have a bucket of their own, and how many can.
func (k *Keys) Level() (used, limit float64) {
	u, l := k.table.level()
	return float64(u), float64(l)
}

// Homeless returns how many admissions were decided by a bucket that keys share
// because there was no room for one more. It only grows.
func (k *Keys) Homeless() uint64 { return k.homeless.Load() }
