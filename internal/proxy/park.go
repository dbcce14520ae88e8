package proxy

import "time"

// parkAfter is how long a session is idle with a goroutine. The stack of that is most of what an idle caller costs; to
// begin again with another takes some microseconds, which somebody who comes back sooner does not pay. Who took longer
// the last time, or was never seen to come back, is parked as soon as he has his answer; who has asked for nothing yet, as soon
// as he is seen to be slower than we are.
const parkAfter = 500 * time.Millisecond

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
	x.revive(phaseIdle, x.deadline.Load())
	return x.park()
}

// retire reports whether the session leaves its goroutine now that there is nothing to do.
func (x *session) retire() bool {
	x.retired = !x.brisk && !x.probe && x.server.lot != nil && x.reason().idle()
	return x.retired
}

// park leaves the connection to the server's lot. From then on x belongs to whoever wakes it. Over: it was cancelled
// before, or can not be parked.
func (x *session) park() exit {
	x.ending.Lock() // who cancels it finds it either awake or in the lot
	w := x.word.Load()
	if phaseOf(w).cancelled() {
		x.ending.Unlock()
		return over
	}
	to := phaseParked
	if phaseOf(w) == phaseFresh {
		to = phaseFreshParked
	}
	snap, policy := x.snap, x.policy
	x.snap, x.policy, x.allowed = nil, nil, x.allowed[:0] // a caller that idles for long does not hold a generation
	x.word.Store(following(w, to))
	err := x.server.lot.Park(x.socket, x.unpark)
	x.ending.Unlock()
	if err == nil || !x.rouse() {
		return parked
	}
	x.snap, x.policy = snap, policy
	x.brisk = true // or it would try again at once
	return over
}

// attach gives a session that was parked the generation that it goes on with. False: its listener is in none.
func (x *session) attach() bool {
	x.snap = x.server.o.Store.Serving(x.name)
	if x.snap == nil {
		x.snap = x.server.o.Store.Current()
		return false
	}
	x.policy = x.snap.Listener(x.name)
	return true
}

// unpark gives a parked session a goroutine, because there is something to read.
func (x *session) unpark() {
	if x.rouse() {
		x.start()
	}
}

// rouse makes a parked session one that has a goroutine. False: somebody else did so, or cancelled it.
func (x *session) rouse() bool {
	for {
		w := x.word.Load()
		if !phaseOf(w).parked() {
			return false
		}
		to := phaseIdle
		if phaseOf(w).fresh() {
			to = phaseFresh
		}
		if x.word.CompareAndSwap(w, following(w, to)) { // else it has just ceased to be fresh, or to be parked
			x.brisk = to == phaseIdle && x.resting(x.server.clock.Load()) < parkAfter
			return true
		}
	}
}
