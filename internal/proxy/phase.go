package proxy

import (
	"errors"
	"slices"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// phase is what a session is doing, or why it was told to stop. It is the low byte of session.word; what is above
// counts, so that a look at the word is about one phase of one exchange.
//
// The session moves from phase to phase; whoever cancels it does so by a compare and swap from a phase that he has seen.
// So either the session is told before its next step, or the cancellation fails: an interrupt never hits what came
// after.
type phase uint8

const (
	phaseFresh       phase = iota // waiting for the first byte of the first request
	phaseFreshParked              // the same, without a goroutine
	phaseIdle                     // waiting for the first byte of another request; or of the first one, for longer than parkAfter
	phaseParked                   // the same, without a goroutine
	phaseHead                     // waiting for the rest of a request's head
	phaseRequest                  // limits, connection, sending; also waiting, where timeout.request ends before the other one
	phaseUpload                   // sending a body that is still arriving
	phaseHeader                   // waiting for the response's head
	phaseStream                   // passing on the response's body
	phaseTunnel                   // passing on bytes both ways
	phaseLinger                   // letting the caller read the last answer

	cancelIdle    phase = iota + 16 // too long without a request
	cancelDrain                     // the service stops, or the listener left
	cancelEvict                     // somebody else needs the place
	cancelShed                      // likewise, and its head is not complete
	cancelPark                      // it has been idle for so long that it needs no goroutine
	cancelKeep                      // the service stops, and the next process takes the connection over
	cancelHead                      // a request's head took too long
	cancelRequest                   // timeout.request
	cancelUpload                    // the caller stopped sending
	cancelSend                      // the upstream stopped taking
	cancelHeader                    // timeout.response_header
	cancelStream                    // the upstream stopped sending
	cancelStalled                   // the caller stopped reading
	cancelTunnel                    // timeout.tunnel_idle
	cancelLinger                    // the caller does not go away
	cancelGone                      // the caller went away
	cancelBody                      // the caller's body is at fault; the upload knows more
	cancelCut                       // the drain's time is over
)

func phaseOf(word uint64) phase { return phase(word) }

// following is the word of the phase that comes after that of word.
func following(word uint64, to phase) uint64 { return (word>>8+1)<<8 | uint64(to) }

func (p phase) cancelled() bool { return p >= cancelIdle }

// exchanging reports whether a request is being answered.
func (p phase) exchanging() bool { return p >= phaseRequest && p <= phaseTunnel }

// waiting reports whether the caller waits for us, so that his leaving ends the exchange.
func (p phase) waiting() bool { return p >= phaseRequest && p <= phaseStream }

// harmless reports whether a request that arrives at the same moment is served all the same.
func (p phase) harmless() bool { return p >= cancelIdle && p <= cancelEvict }

// idle reports whether the session waits for a request of which not a byte has come.
func (p phase) idle() bool { return p <= phaseParked }

// evictable reports whether the session has a place that it can give up to another caller.
func (p phase) evictable() bool { return p.idle() || p == phaseHead || p == phaseLinger }

// evicted reports whether the session is about to give its place up.
func (p phase) evicted() bool { return p == cancelEvict || p == cancelShed || p == cancelLinger }

// fresh reports whether that is the first request, which is most likely on its way.
func (p phase) fresh() bool { return p == phaseFresh || p == phaseFreshParked }

// parked reports whether the session is in the server's lot and has no goroutine.
func (p phase) parked() bool { return p == phaseFreshParked || p == phaseParked }

// pausing reports whether the session goes on later, if nothing happens in the same moment.
func (p phase) pausing() bool { return p == cancelPark || p == cancelKeep }

// overdue is why a phase ends whose time is over.
func (p phase) overdue(x *session) phase {
	if p.waiting() && x.socket.WriteBlocked() {
		return cancelStalled
	}
	switch p {
	case phaseHead:
		return cancelHead
	case phaseRequest:
		return cancelRequest
	case phaseUpload:
		if x.deadline.Load() >= x.overall.Load() {
			return cancelRequest
		}
		if c := x.up.Load(); c != nil && c.WriteBlocked() {
			return cancelSend
		}
		return cancelUpload
	case phaseHeader:
		return cancelHeader
	case phaseStream:
		return cancelStream
	case phaseTunnel:
		return cancelTunnel
	case phaseLinger:
		return cancelLinger
	default:
		return cancelIdle
	}
}

// fault is what a cancelled exchange ends in.
func (p phase) fault() *fault.Fault {
	switch p {
	case cancelHead:
		return fault.New(fault.RequestHeaderTimeout, nil)
	case cancelRequest:
		return fault.New(fault.RequestTimeout, nil)
	case cancelShed:
		return fault.New(fault.ConnectionLimit, nil).
			WithDetail("All connections were in use, and others waited for a place while the rest of this request's head was awaited.")
	case cancelSend:
		return fault.New(fault.RequestTimeout, errors.New("the upstream stopped taking the request's body")).
			WithDetail("The upstream stopped taking the request's body for longer than timeout.idle.").
			WithFix("Find out why the upstream does not read, or raise timeout.idle.")
	case cancelUpload:
		return fault.New(fault.RequestBodyTimeout, nil)
	case cancelHeader:
		return fault.New(fault.ResponseHeaderTimeout, nil)
	case cancelStream:
		return fault.New(fault.ResponseBodyTimeout, nil)
	case cancelStalled:
		return fault.New(fault.CallerGone, errors.New("the caller stopped reading the response"))
	case cancelTunnel:
		return fault.New(fault.TunnelIdleTimeout, nil)
	case cancelGone:
		return fault.New(fault.CallerGone, nil)
	case cancelCut:
		return fault.New(fault.Draining, errors.New("reload.drain_timeout was over")).
			WithDetail("The upstream had not finished its answer when the time for that was over: the proxy stops, or its configuration was replaced.")
	}
	return fault.New(fault.InternalError, errors.New("interrupted for no reason that is known"))
}

// cancel ends the phase that word stands for, and reports whether it was still that one. Anyone may call it.
func (x *session) cancel(word uint64, why phase) bool {
	x.ending.Lock()
	defer x.ending.Unlock()
	if !x.word.CompareAndSwap(word, word&^0xff|uint64(why)) {
		return false
	}
	if phaseOf(word).parked() {
		x.server.lot.Leave(x.socket)
		x.start()
		return true
	}
	switch why {
	case cancelIdle, cancelDrain, cancelEvict, cancelShed, cancelPark, cancelKeep, cancelHead:
		x.socket.InterruptRead()
		return true
	case cancelStalled, cancelTunnel, cancelLinger:
		x.socket.Interrupt()
	case cancelCut, cancelUpload, cancelSend, cancelGone, cancelRequest, cancelHeader, cancelStream:
		x.socket.InterruptRead() // an upload may be reading
	}
	if c := x.up.Load(); c != nil {
		c.Interrupt()
	}
	if give := x.giveUp.Load(); give != nil {
		(*give)(why.fault())
	}
	return true
}

// advance enters a phase that lasts until deadline, on the server's clock. False: the session was cancelled.
func (x *session) advance(to phase, deadline int64) bool {
	// First the deadline, or the new phase could be seen with the old one's. Seen with the new one, the old phase ends
	// no earlier than it would have.
	x.deadline.Store(deadline)
	for {
		w := x.word.Load()
		if phaseOf(w).cancelled() {
			return false
		}
		if x.word.CompareAndSwap(w, following(w, to)) {
			return true
		}
	}
}

// proceed is advance for when two goroutines carry the exchange: it does nothing unless the phase is one of those.
func (x *session) proceed(to phase, deadline int64, from ...phase) {
	x.shift.Lock()
	defer x.shift.Unlock()
	if p := phaseOf(x.word.Load()); p == to && slices.Contains(from, p) {
		x.deadline.Store(deadline)
	} else if slices.Contains(from, p) {
		x.advance(to, deadline)
	}
}

// revive undoes a cancellation that interrupted nothing which is still needed, but the wait for bytes of the caller.
func (x *session) revive(to phase, deadline int64) {
	x.ending.Lock() // as reset; and nobody cancels anew before the socket is ready for that
	defer x.ending.Unlock()
	x.socket.Resume()
	x.enterPhase(to, deadline)
}

// reset enters a phase even though the session was cancelled. What the cancellation interrupted stays so.
func (x *session) reset(to phase, deadline int64) {
	x.ending.Lock() // whoever cancelled may not have interrupted everything yet
	defer x.ending.Unlock()
	x.enterPhase(to, deadline)
}

// enterPhase is advance for a session that was cancelled. The caller holds ending.
func (x *session) enterPhase(to phase, deadline int64) {
	x.deadline.Store(deadline)
	x.word.Store(following(x.word.Load(), to))
}

// reason is why the session was cancelled; a phase that is not cancelled if it was not.
func (x *session) reason() phase { return phaseOf(x.word.Load()) }
