package proxy

import (
	"slices"
	"sync"
)

// mostResting is how many goroutines a crew keeps that have nothing to do.
const mostResting = 256

// crew is the goroutines that sessions run on. One that is done waits for a moment whether there is another session: to
// end it, to begin one and to have its stack grow is a twentieth of what a caller costs who asks once. Its zero value is ready.
type crew struct {
	group sync.WaitGroup

	mu      sync.Mutex    // guards what follows
	resting []chan func() // each of a goroutine that waits; the one that came last at the end
	fewest  int           // there were since the last sweep
	over    bool
}

// run calls f in a goroutine. It does not wait.
func (c *crew) run(f func()) {
	c.mu.Lock()
	n := len(c.resting) - 1
	if n < 0 {
		c.mu.Unlock()
		c.group.Add(1)
		go c.member(f)
		return
	}
	next := c.resting[n]
	c.resting[n] = nil
	c.resting = c.resting[:n]
	c.fewest = min(c.fewest, n)
	c.mu.Unlock()
	next <- f // has room
}

func (c *crew) member(f func()) {
	defer c.group.Done()
	next := make(chan func(), 1)
	for ok := true; ok; f, ok = <-next {
		stretch(1)
		f()
		if !c.rest(next) {
			return
		}
	}
}

// rest reports whether there may be more to do for whoever waits at next.
func (c *crew) rest(next chan func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || len(c.resting) >= mostResting {
		return false
	}
	c.resting = append(c.resting, next)
	return true
}

// sweep ends the goroutines that have not been needed since the last time.
func (c *crew) sweep() {
	c.mu.Lock()
	spare := slices.Clone(c.resting[:c.fewest])
	c.resting = slices.Delete(c.resting, 0, c.fewest)
	c.fewest = len(c.resting)
	c.mu.Unlock()
	for _, next := range spare {
		close(next)
	}
}

// end ends all goroutines and waits for them. What runs has to end by itself.
func (c *crew) end() {
	c.mu.Lock()
	spare := c.resting
	c.resting, c.fewest, c.over = nil, 0, true
	c.mu.Unlock()
	for _, next := range spare {
		close(next)
	}
	c.group.Wait()
}

// stackRoom is how much of its stack an exchange takes, somewhat rounded up.
const stackRoom = 3 << 10

// stretch makes the stack of its goroutine large enough for an exchange while there is hardly anything on it. Otherwise the
// runtime would copy some twenty frames in the middle of one.
//
//go:noinline
func stretch(at int) byte {
	var room [stackRoom]byte // has to be on the stack
	room[at%stackRoom]++
	return room[at/2%stackRoom]
}
