package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
	callers "github.com/mtls-proxy/mtls-proxy/internal/caller"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// session is one connection of a caller: one goroutine that reads requests and answers them, one after the other.
type session struct {
	server  *Server
	socket  *conn.Socket
	name    string // of the listener
	address string // the caller's IP address; "" on a Unix socket
	share   []byte // what the share of connections goes by: callers.Source, or the user on a Unix socket
	shares  *admission.Shares
	local   bool   // the caller is on this host, where it may be a browser
	probe   bool   // the watchdog's own; set before the goroutine starts
	number  uint64 // in the order of their coming; likewise
	start   func() // gives it a goroutine, when it has none
	metrics *metrics.Listener

	word     atomic.Uint64 // see phase
	deadline atomic.Int64  // of the phase, on the server's clock
	up       atomic.Pointer[upstream.Conn]
	giveUp   atomic.Pointer[func(error)] // ends whatever an exchange waits for before it has a connection
	counted  atomic.Bool                 // it has a place among limits.max_connections
	overall  atomic.Int64                // deadline of an exchange with an upload, until the response's head
	turn     atomic.Uint32               // counts exchanges that are over

	shift  sync.Mutex // held to change the phase while an upload is in progress
	ending sync.Mutex // held to cancel, with all that this interrupts, and to undo it

	cut  bool      // the drain's end met it; belongs to server.mu, as does
	told time.Time // when it was first told to end by that, or was ending already

	owner string // of the connection, see ownerOf; belongs to server.mu

	// What follows belongs to the session's goroutine.
	snap      *snapshot.Snapshot // the current exchange's; nil while parked
	policy    *snapshot.Listener // that of snap
	buffers   *conn.Buffers
	work      *work // nil while there is nothing to do
	forwarded []byte
	allowed   []byte // the last host asked for that policy allows
	drained   bool   // the last read of this run took all there was
	entered   bool   // it was asked whether there is a place for it
	closing   bool   // nothing more is served
	unread    bool   // the caller may still be sending what nobody will read
	evicted   bool   // another caller waits for the place
	broken    bool   // the caller is cut off, and is to notice
	apart     bool   // the exchange that step left to be carried outside of it
	reserves  bool   // connections may be reserved for it
	brisk     bool   // the caller came back within parkAfter the last time
	retired   bool   // step ended because there is nothing to do

	party party // who the caller is

	// swept belongs to the sweeper.
	swept struct {
		word   uint64
		looked bool
		left   time.Time // since when the listener is not in the configuration
	}
}

// work is what a session needs while it has bytes to deal with.
type work struct {
	in    *conn.Buffer // from the caller: in.B[r:w] is not dealt with
	r, w  int
	spare *conn.Buffer // what in was before it had to grow during an exchange; req is still in it

	up       *conn.Buffer // from the upstream: up.B[ur:uw] is not dealt with
	ur, uw   int
	out      *conn.Buffer // on its way to either
	req      http1.Request
	resp     http1.Response
	chunks   http1.ChunkReader // of the response
	body     http1.ChunkReader // of the request
	exchange exchange          // between two of them it is zero, but that last may be set already
	id       requestID         // of the exchange, when it is named
	pending  bool              // req is half parsed
}

// clear makes w fit for another session. Slices of the parsers keep their memory.
func (w *work) clear() {
	w.r, w.w, w.ur, w.uw = 0, 0, 0, 0
	w.req.Reset()
	w.resp.Reset()
	w.chunks.Reset()
	w.body.Reset()
	w.exchange = exchange{}
	w.pending = false
}

func newSession(s *Server, snap *snapshot.Snapshot, policy *snapshot.Listener, c net.Conn) *session {
	x := &session{
		server: s, socket: conn.NewSocket(c), name: policy.Name, local: callers.IsHere(c.RemoteAddr(), c.LocalAddr()),
		metrics: policy.Metrics, shares: policy.Shares, snap: snap, policy: policy, buffers: snap.Buffers(),
	}
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		x.address = tcp.IP.String()
		x.share = []byte(callers.Source(tcp, c.LocalAddr()))
	} else {
		x.introduce()
	}
	x.deadline.Store(x.after(snap.Limits.IdleTimeout))
	return x
}

// after is the deadline of something that begins now. The clock may be late by one sweep, so that much is added.
func (x *session) after(d time.Duration) int64 {
	return x.server.clock.Load() + int64(d) + int64(sweepMost)
}

// live serves the caller until either side has enough, or until there is nothing to do for a while.
func (x *session) live(ctx context.Context) {
	if x.snap == nil && !x.attach() {
		x.hangUp()
		x.end()
		x.callerLeft("its listener has left the configuration")
		return
	}
	if !x.entered && !x.probe {
		if limit := x.server.enter(x); limit != "" {
			x.turnAway(limit)
			_ = x.socket.Close()
			x.end()
			x.callerLeft(limit)
			return
		}
	}
	first := !x.entered
	x.entered = true
	x.identify()
	if first {
		x.callerConnected()
	}
	why := "the next process goes on"
	switch x.converse(ctx) {
	case over:
		why = x.whyOver()
		x.hangUp()
	case parked:
		return // it may have another goroutine by now
	case kept:
	}
	x.end()
	x.callerLeft(why)
}

// exit is why a session's goroutine ends.
type exit uint8

const (
	over   exit = iota
	parked      // another one goes on when there is something to do
	kept        // the next process goes on
)

func (x *session) converse(ctx context.Context) exit {
	step := func() (done bool) { return x.serve(ctx) }
	for {
		switch why := x.reason(); {
		case why.pausing():
			if p := x.pause(why); p != over {
				return p
			}
		case why.cancelled() && !x.wake():
			return over
		}
		err := x.socket.Run(step)
		if x.retired {
			x.retired = false
			if p := x.park(); p != over {
				return p
			}
			continue
		}
		if x.apart {
			x.apart = false
			x.exchange(ctx)
		}
		if x.closing || err != nil && !x.reason().cancelled() {
			return over
		}
	}
}

// hangUp ends the caller's connection.
func (x *session) hangUp() {
	switch {
	case x.broken:
		_ = x.socket.Abort()
		return
	case x.unread:
		x.linger()
	}
	_ = x.socket.Leave()
}

// end is the end of a session, whatever becomes of its connection.
func (x *session) end() {
	x.release()
	if x.counted.Swap(false) { // nobody evicts it any more
		x.snap.Limits.Connections.Leave()
		x.shares.Leave(x.share)
	}
	x.server.forget(x)
}

// wake decides what becomes of a session whose wait for a request was ended: a request that arrived in the same moment
// is still served. False: nothing is to be done.
func (x *session) wake() bool {
	why := x.reason()
	switch {
	case why == cancelHead:
		x.refuseHead(why.fault())
		return false
	case why == cancelShed, why == cancelEvict && x.working().pending:
		x.shed()
		return false
	case !why.harmless():
		return false
	}
	w := x.working()
	w.exchange.last = true
	if w.pending { // a part of it came before
		x.revive(phaseHead, x.after(x.snap.Limits.HeaderTimeout))
		return true
	}
	n, err := x.socket.ReadNow(w.in.B[w.w:])
	if err != nil {
		return false // stays cancelled, so that nobody else counts on its place
	}
	w.w += n
	x.evicted = why == cancelEvict
	x.revive(phaseIdle, x.after(x.snap.Limits.IdleTimeout))
	return true
}

// shed answers an incomplete head with 503, as another caller needs the place, and does not wait until that is read.
func (x *session) shed() {
	x.refuseHead(cancelShed.fault())
	x.unread = false
}

// working returns what to work with.
func (x *session) working() *work {
	if x.work == nil {
		x.work = x.server.lend(x.buffers)
	}
	return x.work
}

func (x *session) release() {
	if x.work != nil {
		x.server.back(x.work, x.buffers)
		x.work = nil
	}
}

// serve is the step of a session: it reads and answers until there is nothing left to read. True ends the run, either for
// good or to carry an exchange that needs to read from the caller.
func (x *session) serve(ctx context.Context) (done bool) {
	w := x.working()
	x.drained = false
	for {
		if w.w > w.r {
			n, err := w.req.Parse(w.in.B[w.r:w.w], x.headLimits())
			switch {
			case err != nil:
				x.refuse(err)
				return true
			case n > 0:
				x.begin(ctx, n)
				if x.apart || x.closing {
					return true
				}
				continue
			case !w.pending && !isBlank(w.in.B[w.r:w.w]):
				if x.evicted || x.reason() == cancelEvict { // what came in that moment is no whole request
					x.shed()
					return true
				}
				w.pending = true
				if !x.begun(phaseHead, x.after(x.snap.Limits.HeaderTimeout)) && !x.reason().harmless() {
					x.closing = true
					return true
				}
			}
		}
		if x.drained {
			if w.w == w.r && !w.pending {
				x.release()
				return x.retire()
			}
			return false
		}
		if !x.fill(w) {
			x.closing = !x.reason().pausing()
			return true
		}
		if x.drained && w.w == w.r {
			x.release()
			return x.retire()
		}
	}
}

// headLimits bound the heads of requests. On a Unix socket no browser calls, and programs put all kinds of things into Host there.
func (x *session) headLimits() *http1.Limits {
	if x.address == "" {
		return &x.snap.Limits.UnixHTTP
	}
	return &x.snap.Limits.HTTP
}

// isBlank reports whether b is the beginning of the empty line that may come before a request. Some callers end a body
// with one; that is no reason to wait for a head.
func isBlank(b []byte) bool { return len(b) <= 2 && string(b) == "\r\n"[:len(b)] }

// fill reads what the caller sent. False: there will be no more.
func (x *session) fill(w *work) bool {
	w.makeRoom(x.buffers, x.snap.Limits.HTTP.MaxHead)
	room := w.in.B[w.w:]
	n, err := x.socket.TryRead(room)
	w.w += n
	x.drained = n < len(room)
	switch {
	case err == nil, errors.Is(err, conn.ErrWouldBlock):
		return true
	case errors.Is(err, conn.ErrInterrupted):
		x.drained = false
		return !x.reason().pausing() && x.wake()
	}
	return false // io.EOF and what is worse
}

// makeRoom sees to it that there is room behind what was read, for a head of up to most bytes and a little more.
func (w *work) makeRoom(b *conn.Buffers, most int) {
	if w.r == w.w {
		w.r, w.w = 0, 0
	}
	if w.w < len(w.in.B) {
		return
	}
	if w.r > 0 {
		w.w = copy(w.in.B, w.in.B[w.r:w.w])
		w.r = 0
		return
	}
	larger := b.AtLeast(most + conn.SmallBuffer)
	copy(larger.B, w.in.B)
	b.Put(w.in)
	w.in = larger
}

// grow gives in the room for n bytes during an exchange, whose req still points to where they are now.
func (w *work) grow(b *conn.Buffers, n int) {
	larger := b.AtLeast(n)
	copy(larger.B, w.in.B[:w.w])
	b.Put(w.spare)
	w.in, w.spare = larger, w.in
}

// rest is what a session does after an exchange: it waits for the next request, or ends.
func (x *session) rest() {
	w := x.work
	w.req.Reset()
	if x.closing {
		return
	}
	idle := x.after(x.snap.Limits.IdleTimeout)
	if x.advance(phaseIdle, idle) {
		return
	}
	if why := x.reason(); why == cancelHeader || why == cancelRequest {
		// The time for a response was over in the moment in which it came. The caller has it, and was not told that the
		// connection ends; of that, only waits for bytes were interrupted.
		x.revive(phaseIdle, idle)
		return
	}
	x.closing = true
}
