package breaker

import (
	"sync"
	"time"
)

// Budget bounds retries to a share of the requests of the same time. It is safe for concurrent use and allocates
// nothing; Request takes no lock.
type Budget struct {
	ratio float64
	least int
	start time.Time
	seen  ring // the first of a pair counts requests, the second retries

	mu sync.Mutex // held to compare and to count a retry
}

// NewBudget returns a Budget of ratio retries per request over the window, and of least retries within the window
// however few requests there are.
func NewBudget(ratio float64, least int, window time.Duration) *Budget {
	return &Budget{ratio: ratio, least: least, start: time.Now(), seen: newRing(window)}
}

// Request counts a request. Its retries are not requests.
func (b *Budget) Request(now time.Time) { b.seen.add(now.Sub(b.start), oneFirst) }

// Retry reports whether there may be another retry, and counts it when there may.
func (b *Budget) Retry(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if spent, limit := b.Level(now); spent >= limit {
		return false
	}
	b.seen.add(now.Sub(b.start), oneSecond)
	return true
}

// Level returns how many retries there were within the window, and how many there may be.
func (b *Budget) Level(now time.Time) (spent, limit int) {
	requests, spent := b.seen.sum(now.Sub(b.start))
	return spent, max(b.least, int(b.ratio*float64(requests)))
}
