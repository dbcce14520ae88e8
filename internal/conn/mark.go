package conn

import (
	"math"
	"time"
)

// How a Socket waits for the parts of a long body. Where they come fast, to wake up for each of them and go to sleep again
// costs more than it takes to carry it. So a wait ends only when there is much to carry, or when that takes its time. What
// is there when a wait would begin is taken as it is.
const (
	// lowWater is how much there is to be at the end of a wait: somewhat less than a LargeBuffer takes.
	lowWater = 128 << 10

	// muchLeft is what is still to come when a wait is for so much. There it is certain that as much will come, whatever
	// has been read ahead: who asks counts bytes of the body, some of which may have left the kernel already.
	muchLeft = 4 * lowWater

	// lowWaterWait is how long a wait for so much may be, of which up to a half is not used. It is also the longest time by
	// which bytes arrive later than without.
	lowWaterWait = 4 * time.Millisecond

	// missedFor is how many bytes come as they come after a wait that took so long: the peer may not be one that sends fast.
	missedFor = 1 << 20
)

// mark is the low-water mark of a Socket (SO_RCVLOWAT, socket(7)). It belongs to the goroutine that reads.
type mark struct {
	set   bool
	until time.Time // the read deadline that bounds waits while it is set
	left  int64     // what Expect said last
	again int64     // after a wait that took too long: it is not set before so little is left
	call  func(uintptr)
}

// Expect tells that the peer has at least left bytes more to send, without anything from us. While that is much, waits for
// bytes end with many of them, with the peer's end or after a few milliseconds. The goroutine that reads calls it before it
// waits, and with 0 before it waits for anything else.
func (s *Socket) Expect(left int64) {
	m := &s.mark
	m.left = left
	switch much := left >= muchLeft; {
	case much && !m.set && left <= m.again && s.raw != nil:
		m.until = time.Time{}
		s.setMark(true)
	case !much:
		if m.set {
			s.setMark(false)
			s.rearm()
		}
		m.again = math.MaxInt64
	}
}

// missed tells that a wait was too long.
func (s *Socket) missed() {
	s.mark.again = s.mark.left - missedFor
	s.setMark(false)
}

func (s *Socket) setMark(on bool) {
	s.mark.set = on
	_ = s.raw.Control(s.mark.call)
}

func (s *Socket) markStep(fd uintptr) {
	if s.mark.set {
		setLowWater(fd, lowWater)
	} else {
		setLowWater(fd, 1)
	}
}

// boundWait sees to it that a wait that begins now ends in time, with what there is then: after half of lowWaterWait at the
// least. For most waits there is nothing to do.
func (s *Socket) boundWait() {
	now := time.Now()
	if s.mark.until.Sub(now) >= lowWaterWait/2 {
		return
	}
	s.mark.until = now.Add(lowWaterWait)
	_ = s.net.SetReadDeadline(s.mark.until)
	if s.interrupted.Load() { // in the same moment; waits are over for good
		_ = s.net.SetReadDeadline(past())
	}
}
