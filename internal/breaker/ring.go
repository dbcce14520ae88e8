package breaker

import (
	"sync/atomic"
	"time"
)

// ring counts pairs of things over a window that slides on by tenths: what it counts is 9 to 10 tenths of the window
// old at most. It takes no lock. Additions that meet a slot just being reused may be lost or counted a tenth late.
type ring struct {
	width time.Duration
	// Each slot holds 16 bits of the number of its tenth, then 24 bits of each count. A change of one sees all three.
	// Sixteen million in a tenth would spill into the number, and so void the slot.
	slots [slots]atomic.Uint64
}

const (
	slots     = 10
	tickShift = 48
	countMask = 1<<24 - 1

	oneFirst  = 1 << 24
	oneSecond = 1
)

func newRing(window time.Duration) ring { return ring{width: max(window/slots, 1)} }

// tick is the number of the tenth that at is in. at counts from when the owner of the ring began.
func (r *ring) tick(at time.Duration) uint64 { return uint64(max(at, 0) / r.width) }

// add counts n, a sum of oneFirst and oneSecond.
func (r *ring) add(at time.Duration, n uint64) {
	tick := r.tick(at)
	s := &r.slots[tick%slots]
	for {
		w := s.Load()
		if uint16(w>>tickShift) == uint16(tick) {
			s.Add(n)
			return
		}
		if s.CompareAndSwap(w, tick<<tickShift|n) {
			return
		}
	}
}

// sum returns what was counted within the window.
func (r *ring) sum(at time.Duration) (first, second int) {
	tick := r.tick(at)
	for i := range r.slots {
		w := r.slots[i].Load()
		if age := uint16(tick) - uint16(w>>tickShift); age < slots {
			first += int(w >> 24 & countMask)
			second += int(w & countMask)
		}
	}
	return first, second
}
