package proxy

import "time"

// parkAfter is how long a session is idle with a goroutine. The stack of that is most of what an idle caller costs; to
// begin again with another takes some microseconds, which somebody who comes back sooner does not pay.
const parkAfter = time.Second

// resting is for how long an idle session has been so, more or less.
func (x *session) resting(clock int64) time.Duration {
	since := x.deadline.Load() - int64(x.server.o.Store.Current().Limits.IdleTimeout) - int64(sweepMost)
	return time.Duration(clock - since)
}

// begun enters a phase of a request, a part of which is there. So much for pausing.
func (x *session) begun(to phase, deadline int64) bool {
	if x.advance(to, deadline) {
		return true
	}
	if !x.reason().pausing() {
		return false
	}
	x.revive(to, deadline)
	return true
}

// pause leaves off a session in which nothing is going on. Where something is, after all, it goes on: over.
func (x *session) pause(why phase) exit {
	switch w := x.work; {
	case w != nil && w.pending:
		x.revive(phaseHead, x.after(x.snap.Limits.HeaderTimeout))
		return over
	case w != nil && w.w > w.r:
		x.revive(phaseIdle, x.deadline.Load())
		return over
	}
	x.release()
	if why == cancelKeep {
		x.server.keep(x)
		return kept
	}
	return x.park()
}

// park leaves the connection to the server's lot. From then on x belongs to whoever wakes it.
func (x *session) park() exit {
	x.revive(phaseParked, x.deadline.Load())
	if x.server.lot.Park(x.socket, x.unpark) == nil || !x.rouse() {
		return parked
	}
	return over // it can not be parked, and nobody else has woken it meanwhile
}

// unpark gives a parked session a goroutine, because there is something to read.
func (x *session) unpark() {
	if x.rouse() {
		x.start()
	}
}

// rouse makes a parked session an idle one. False: somebody else did so, or cancelled it.
func (x *session) rouse() bool {
	w := x.word.Load()
	return phaseOf(w) == phaseParked && x.word.CompareAndSwap(w, (w>>8+1)<<8|uint64(phaseIdle))
}
