package admission

import (
	"container/list"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Gate lets a limited number in at a time; the others may queue, and are let in
// in order of arrival. Those for whom the queue is already too long to be served
// in their time are refused when they come: waiting would do nobody good. All
// methods may be called concurrently.
//
// Whoever was let in by TryEnter or Enter calls Leave once.
type Gate struct {
	// How many are inside and how many queue, in one word: a change of either
	// sees the other as it is. So a newcomer cannot pass a queue that is just
	// forming, and Leave cannot miss its first waiter.
	state atomic.Uint64
	limit atomic.Uint32

	mu      sync.Mutex // held to change the queued half of state, and the fields below with it
	waiters list.List  // of *waiter, the first to be served in front
	pace    pace       // at which places were given back while there was a queue

	hopeless atomic.Uint64
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
// closed. A nil gone never is. It does not queue when, as fast as places were given
// back lately, those in front would take longer than timeout; while nothing is
// known of that, it does. It reports whether the caller is inside.
func (g *Gate) Enter(timeout time.Duration, gone <-chan struct{}) bool {
	if g.TryEnter() {
		return true
	}
	if timeout <= 0 {
		return false
	}
	place, w, entered := g.queue(timeout)
	if w == nil {
		return entered
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

// queue appends a waiter; or it enters, if room was made meanwhile; or it does
// neither, because there is no hope.
func (g *Gate) queue(timeout time.Duration) (place *list.Element, w *waiter, entered bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		s := g.state.Load()
		if queued(s) == 0 && inside(s) < g.limit.Load() {
			if g.state.CompareAndSwap(s, s+1) {
				return nil, nil, true
			}
			continue
		}
		if queued(s) == 0 {
			g.pace.begin(time.Now())
		} else if !g.pace.serves(time.Now(), int(queued(s))+1, timeout) {
			g.hopeless.Add(1)
			return nil, nil, false
		}
		if g.state.CompareAndSwap(s, s+oneQueued) {
			w = &waiter{ready: make(chan struct{})}
			return g.waiters.PushBack(w), w, false
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
	g.pace.left++
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

// Hopeless returns how many were refused because they would not have been served
// in time. It only grows.
func (g *Gate) Hopeless() uint64 { return g.hopeless.Load() }

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

// pace is how fast places are given back, measured while somebody queues: otherwise
// they are given back as fast as they are taken, which says nothing about how
// fast they could be. It counts in windows as long as a newcomer's timeout: what
// was served in the last of them is what the next can be expected to serve.
type pace struct {
	since  time.Time // when the window began
	left   int       // how many left in it
	before float64   // per nanosecond, in the window before; negative when there was none
}

// A shorter window would take an ordinary pause for the end.
const leastWindow = 100 * time.Millisecond

// begin forgets what is known: a queue is forming.
func (p *pace) begin(now time.Time) { *p = pace{since: now, before: -1} }

// serves reports whether the one at position, counted from 1, can expect to be
// served within timeout, as far as is known. It knows nothing for the first
// quarter of the first window.
func (p *pace) serves(now time.Time, position int, timeout time.Duration) bool {
	window := max(timeout, leastWindow)
	elapsed := now.Sub(p.since)
	if elapsed >= window {
		*p, elapsed = pace{since: now, before: float64(p.left) / float64(elapsed)}, 0
	}
	var rate float64
	switch {
	case p.before >= 0:
		rate = (float64(p.left) + p.before*float64(window-elapsed)) / float64(window)
	case elapsed < window/4:
		return true
	default:
		rate = float64(p.left) / float64(elapsed)
	}
	return float64(position) <= rate*float64(timeout)
}
