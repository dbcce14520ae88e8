package admission

import (
	"crypto/sha256"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Shares limits how many of something each key may hold at a time, so that one
// caller cannot take all connections. It remembers the keys that hold something,
// and no others. All methods may be called concurrently.
//
// Whoever was let in by Enter calls Leave once, with the same key.
type Shares struct {
	seed   maphash.Seed
	limit  atomic.Int64 // 0 or less is no limit
	shards [16]struct {
		mu   sync.Mutex      // guards held
		held map[string]*int // never 0; a pointer, for a map of plain numbers would copy the key at each change
	}
}

// NewShares returns shares of limit each. A limit of 0 or less is no limit.
func NewShares(limit int) *Shares {
	s := &Shares{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].held = make(map[string]*int)
	}
	s.SetLimit(limit)
	return s
}

// Enter takes one of the key's share, unless that is used up. It never waits and
// does not keep key.
func (s *Shares) Enter(key []byte) bool {
	var digest [sha256.Size]byte
	name := nameOf(key, &digest)
	h := &s.shards[maphash.Bytes(s.seed, name)%uint64(len(s.shards))]
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.held[string(name)]
	if n == nil {
		one := 1 // a limit is at least that
		h.held[string(name)] = &one
		return true
	}
	if limit := s.limit.Load(); limit > 0 && int64(*n) >= limit {
		return false
	}
	*n++
	return true
}

// Leave gives back one of the key's share.
func (s *Shares) Leave(key []byte) {
	var digest [sha256.Size]byte
	name := nameOf(key, &digest)
	h := &s.shards[maphash.Bytes(s.seed, name)%uint64(len(s.shards))]
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.held[string(name)]
	if n == nil {
		panic("admission: Leave of a share by someone who holds none") // somebody else's would be given back
	}
	if *n--; *n == 0 {
		delete(h.held, string(name))
	}
}

// Holds returns how many the key holds.
func (s *Shares) Holds(key []byte) int {
	var digest [sha256.Size]byte
	name := nameOf(key, &digest)
	h := &s.shards[maphash.Bytes(s.seed, name)%uint64(len(s.shards))]
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.held[string(name)]; n != nil {
		return *n
	}
	return 0
}

// Len returns how many keys hold something.
func (s *Shares) Len() (n int) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n += len(h.held)
		h.mu.Unlock()
	}
	return n
}

// SetLimit changes what each key may hold. Who holds more is not made to leave,
// but gets nothing before holding less.
func (s *Shares) SetLimit(limit int) { s.limit.Store(int64(limit)) }

// Limit returns what each key may hold, 0 when there is no limit.
func (s *Shares) Limit() int { return int(max(s.limit.Load(), 0)) }
