package admin

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	maxWaiting = 16 // passwords that wait to be checked
	waitFor    = 5 * time.Second
)

// gate lets one password be checked at a time. The sources of those that wait take turns, so that a flood from one keeps no other
// out. Within a source the one that came last and the one that came first take turns: under a burst of guesses, a password that
// comes behind them is checked soon. When too many wait, the oldest of the source with the most makes room.
type gate struct {
	mu      sync.Mutex // guards the following
	taken   bool
	oldest  bool      // within a source, the one that came first is next
	waiting []*waiter // in the order in which they came
	served  []string  // sources, the one that was served last at the end
}

// waiter is a password in the queue.
type waiter struct {
	from string
	turn chan struct{} // gets a value when it may be checked; closed when it had to make room
}

func newGate() *gate { return &gate{} }

// enter reports false when the turn of a password does not come in time, or it had to make room.
func (g *gate) enter(ctx context.Context, from string) bool {
	g.mu.Lock()
	if !g.taken {
		g.serve(from)
		g.mu.Unlock()
		return true
	}
	w := &waiter{from: from, turn: make(chan struct{}, 1)}
	g.waiting = append(g.waiting, w)
	if len(g.waiting) > maxWaiting {
		g.makeRoom()
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	select {
	case _, mine := <-w.turn:
		return mine
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, w); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		return false
	}
	_, mine := <-w.turn // it was decided at that moment
	return mine
}

// leave lets the next one in, after a while.
func (g *gate) leave(after time.Duration) {
	if after <= 0 {
		g.next()
		return
	}
	time.AfterFunc(after, g.next)
}

func (g *gate) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.taken = false
		return
	}
	first := 0
	for i, w := range g.waiting {
		chosen := g.waiting[first].from
		if w.from == chosen && !g.oldest || g.lastServed(w.from) < g.lastServed(chosen) {
			first = i
		}
	}
	g.oldest = !g.oldest
	w := g.waiting[first]
	g.waiting = slices.Delete(g.waiting, first, first+1)
	g.serve(w.from)
	w.turn <- struct{}{}
}

// serve notes whose turn it is. The caller holds mu.
func (g *gate) serve(from string) {
	g.taken = true
	if i := g.lastServed(from); i >= 0 {
		g.served = slices.Delete(g.served, i, i+1)
	}
	g.served = append(g.served, from)
	if len(g.served) > maxWaiting {
		g.served = slices.Delete(g.served, 0, 1)
	}
}

// lastServed is the less, the longer ago from was served. The caller holds mu.
func (g *gate) lastServed(from string) int { return slices.Index(g.served, from) }

// makeRoom refuses one. The caller holds mu.
func (g *gate) makeRoom() {
	count := make(map[string]int)
	for _, w := range g.waiting {
		count[w.from]++
	}
	out := 0
	for i, w := range g.waiting {
		if count[w.from] > count[g.waiting[out].from] {
			out = i
		}
	}
	close(g.waiting[out].turn)
	g.waiting = slices.Delete(g.waiting, out, out+1)
}
