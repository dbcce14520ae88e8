package proxy

import (
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// How often sessions are looked at: a quarter of the shortest timeout, within these bounds.
const (
	sweepLeast = 10 * time.Millisecond
	sweepMost  = 250 * time.Millisecond
)

// sweep ends what takes too long, notices callers that went away, and keeps the coarse clock. One goroutine does it for
// all sessions, so that no exchange has to set a timer.
func (s *Server) sweep() {
	defer close(s.swept)
	snap := s.o.Store.Current()
	every := rhythm(snap)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.stopped:
			return
		case <-tick.C:
		}
		now := time.Now()
		s.tell(now)
		if next := s.o.Store.Current(); next != snap {
			snap = next
			if d := rhythm(snap); d != every {
				every = d
				tick.Reset(every)
			}
		}
		s.look(snap, now)
		for _, u := range snap.Upstreams() {
			u.Sweep(now)
		}
		s.closer.Sweep()
		s.crew.sweep()
	}
}

func rhythm(snap *snapshot.Snapshot) time.Duration {
	d := min(snap.Limits.HeaderTimeout, snap.Limits.IdleTimeout)
	for _, u := range snap.Upstreams() {
		t := u.Timeout()
		d = min(d, t.ResponseHeader, t.Idle, t.Request, t.TunnelIdle)
		if try := u.Retry().TryTimeout; try > 0 {
			d = min(d, try)
		}
	}
	return min(max(d/4, sweepLeast), sweepMost)
}

func (s *Server) look(snap *snapshot.Snapshot, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clock, questions := s.now(now), maxQuestions
	for x := range s.sessions {
		x.look(snap, now, clock, &questions)
	}
}

// maxQuestions bounds how often a sweep asks the kernel whether a caller that half-closed is still there: some 10 us each.
const maxQuestions = 64

// look is what the sweeper does with one session. What is called swept belongs to it.
func (x *session) look(snap *snapshot.Snapshot, now time.Time, clock int64, questions *int) {
	w := x.word.Load()
	p := phaseOf(w)
	if p.cancelled() {
		if x.swept.word == w && x.socket.WriteBlocked() {
			x.socket.Interrupt() // nobody waits for a caller that does not read his last answer
		}
		x.swept.word = w
		return
	}
	if x.deadline.Load() <= clock {
		x.cancel(w, p.overdue(x))
		return
	}
	if snap.Listener(x.name) == nil {
		x.leave(w, snap, now)
	} else {
		x.swept.left = time.Time{}
	}
	if p.parked() {
		if p == phaseFreshParked && x.resting(clock) >= parkAfter {
			x.word.CompareAndSwap(w, following(w, phaseParked))
		}
		return
	}
	up := x.up.Load()
	if up != nil && p.exchanging() && up.Upstream().Overdue(now) {
		x.cancel(w, cancelCut)
		return
	}
	if x.swept.word != w { // young; looked at more closely next time
		x.swept.word, x.swept.looked = w, false
		return
	}
	switch {
	case p.waiting():
		if x.left(questions) {
			x.cancel(w, cancelGone)
		} else if up != nil && up.Gone() {
			up.Nudge()
		}
	case p == phaseTunnel: // both directions read before they wait, so no end stays hidden
	case !x.swept.looked:
		// An end that came together with the last request does not announce itself again.
		x.swept.looked = true
		if x.socket.PeerGone() {
			x.socket.Nudge()
		}
	case p.idle() && x.server.lot != nil && !x.probe && x.resting(clock) >= parkAfter:
		x.cancel(w, cancelPark)
	}
}

// left reports whether the caller has gone. One that sends no more but waits for its answer has not: its program still holds the other
// end, which is known on Unix sockets and for programs of this host. questions is how often more that may be asked now.
func (x *session) left(questions *int) bool {
	switch x.socket.PeerEnd() {
	case conn.Open:
		return false
	case conn.HalfClosed:
		if x.address == "" {
			return false
		}
		if *questions == 0 {
			return false // the next sweep asks
		}
		*questions--
		return !x.server.callers.Holds(x.socket)
	default:
		return true
	}
}

// deserted is left for the session itself.
func (x *session) deserted() bool {
	questions := 1
	return x.left(&questions)
}

// leave ends sessions of a listener that left the configuration: idle ones now, the others when the drain's time is over.
func (x *session) leave(w uint64, snap *snapshot.Snapshot, now time.Time) {
	if x.swept.left.IsZero() {
		x.swept.left = now
	}
	switch p := phaseOf(w); {
	case p.idle() && (!p.fresh() || now.Sub(x.swept.left) > freshGrace):
		x.cancel(w, cancelDrain)
	case now.Sub(x.swept.left) >= snap.Drain:
		x.cancel(w, cancelCut)
	}
}
