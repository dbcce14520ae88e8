package admission

import (
	"container/list"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Gate lets a limited number in at a time; the others may queue, and are let in
// in order of arrival. All methods may be called concurrently.
//
// Whoever was let in by TryEnter or Enter calls Leave once.
type Gate struct {
	// How many are inside and how many queue, in one word: a change of either
	// sees the other as it is. So a newcomer cannot pass a queue that is just
	// forming, and Leave cannot miss its first waiter.
	state atomic.Uint64
	limit atomic.Uint32

	mu      sync.Mutex // held to change the queued half of state, and waiters with it
	waiters list.List  // of *waiter, the first to be served in front
}

// waiter is one queued Enter. Its fields belong to Gate.mu.
type waiter struct {
	ready   chan struct{} // closed when a place is granted
	granted bool
}

const oneQueued = 1 << 32

func inside(state uint64) uint32 { return uint32(state) }
func queued(state uint64) uint32 { return uint32(state >> 32) }

// NewGate returns a gate that holds limit at a time. A limit of 0 or less is no limit.
func NewGate(limit int) *Gate {
	g := new(Gate)
	g.limit.Store(boundOf(limit))
	return g
}

// TryEnter enters when there is room and nobody queues. It never waits.
func (g *Gate) TryEnter() bool {
	for {
		s := g.state.Load()
		if queued(s) > 0 || inside(s) >= g.limit.Load() {
			return false
		}
		if g.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

// Enter enters, queueing for at most timeout; it gives up at once when gone is
// closed. A nil gone never is. It reports whether the caller is inside.
func (g *Gate) Enter(timeout time.Duration, gone <-chan struct{}) bool {
	if g.TryEnter() {
		return true
	}
	if timeout <= 0 {
		return false
	}
	place, w := g.queue()
	if w == nil {
		return true
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-w.ready:
		return true
	case <-t.C:
		// A place granted while the timer fired is ours: it is used, not lost.
		return !g.unqueue(place, w)
	case <-gone:
		if !g.unqueue(place, w) {
			g.Leave() // granted meanwhile, and nobody is left to use it
		}
		return false
	}
}

// queue appends a waiter, or enters and returns none if room was made meanwhile.
func (g *Gate) queue() (*list.Element, *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		s := g.state.Load()
		if queued(s) == 0 && inside(s) < g.limit.Load() {
			if g.state.CompareAndSwap(s, s+1) {
				return nil, nil
			}
			continue
		}
		if g.state.CompareAndSwap(s, s+oneQueued) {
			w := &waiter{ready: make(chan struct{})}
			return g.waiters.PushBack(w), w
		}
	}
}

// unqueue takes w out of the queue; false means that it had been granted a place.
func (g *Gate) unqueue(place *list.Element, w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.granted {
		return false
	}
	g.waiters.Remove(place)
	var minusOne uint64 = oneQueued
	g.state.Add(-minusOne)
	return true
}

// Leave gives the place back, or hands it to the first in the queue.
func (g *Gate) Leave() {
	for {
		s := g.state.Load()
		if inside(s) == 0 {
			panic("admission: Leave by someone who was not inside") // the count would wrap, and the gate stay open for ever
		}
		if queued(s) > 0 {
			break
		}
		if g.state.CompareAndSwap(s, s-1) {
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state.Add(^uint64(0))
	g.admit()
}

// admit grants places while there are both room and waiters. The caller holds mu,
// which is why the queue cannot grow, and no newcomer take the room, meanwhile.
func (g *Gate) admit() {
	for {
		s := g.state.Load()
		if queued(s) == 0 || inside(s) >= g.limit.Load() {
			return
		}
		if !g.state.CompareAndSwap(s, s-oneQueued+1) {
			continue // someone left
		}
		w := g.waiters.Remove(g.waiters.Front()).(*waiter)
		w.granted = true
		close(w.ready)
	}
}

// InUse returns how many are inside.
func (g *Gate) InUse() int { return int(inside(g.state.Load())) }

// Queued returns how many are waiting.
func (g *Gate) Queued() int { return int(queued(g.state.Load())) }

// Limit returns how many may be inside at a time, 0 when there is no limit.
func (g *Gate) Limit() int {
	if n := g.limit.Load(); n != math.MaxUint32 {
		return int(n)
	}
	return 0
}

// SetLimit changes the limit. Room that this makes goes to the queue at once; when
// more are inside than the new limit, nobody is sent away, but nobody enters
// before enough have left.
func (g *Gate) SetLimit(limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit.Store(boundOf(limit))
	g.admit()
}

func boundOf(limit int) uint32 {
	if limit <= 0 || limit > math.MaxUint32-1 {
		return math.MaxUint32
	}
	return uint32(limit)
}
