package proxy

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// upgrade follows a 101 by passing bytes on in both directions until both ends have said that they are done. The rest of
// the request's body goes first.
func (x *session) upgrade() *fault.Fault {
	w := x.work
	e, r := &w.exchange, &w.resp
	if w.req.Upgrade == nil || !http1.UpgradeOffered(w.req.Upgrade, r.Upgrade) {
		return fault.New(fault.UpgradeFailed, errors.New("101 to a request that asked for no such protocol"))
	}
	if f := x.endUpload(e.upload); f != nil {
		return f
	}
	x.leaveGate()
	e.status, e.upstream, e.answered, e.last = 101, true, true, true
	rewrite := e.route.Response
	rewrite.CallerMinor = w.req.Minor
	out := x.takeOut()
	out.B = append(r.Append(out.B, &rewrite), w.up.B[w.ur:w.uw]...)
	e.received = int64(w.uw - w.ur)
	w.ur, w.uw = 0, 0
	f := x.pass(out.B)
	x.putOut()
	if f != nil {
		return f
	}
	if !x.advance(phaseTunnel, x.after(e.route.Upstream.Timeout().TunnelIdle)) {
		return x.reason().fault()
	}
	e.conn.Apart(true)
	early := w.in.B[e.end:w.w]
	t := &tunnel{x: x, in: x.buffers.AtLeast(len(early)), done: make(chan struct{})}
	t.w = copy(t.in.B, early)
	go t.carry()
	f = x.fromUpstream()
	if f != nil {
		e.conn.Interrupt()
		x.socket.Interrupt()
	}
	<-t.done
	e.conn.Apart(false)
	x.buffers.Put(t.in)
	e.sent += t.sent
	if f != nil && t.ended.Load() && f.Token.Blame() == fault.Upstream && !x.reason().cancelled() {
		// The caller had ended its side, and the upstream needs no manners then. A caller that still reads sees the connection break.
		x.abort()
		x.closeConn(metrics.ClosedTunnel)
		return nil
	}
	if why := x.reason(); why.cancelled() {
		return why.fault()
	}
	if t.fault != nil && (f == nil || errors.Is(f.Err, conn.ErrInterrupted)) { // it broke off first
		return t.fault
	}
	if f != nil {
		return f
	}
	x.closing = true
	x.closeConn(metrics.ClosedTunnel)
	return nil
}

// endUpload waits until the request's body was sent. Until then a 101 is not passed on: the caller could not use it.
func (x *session) endUpload(up *upload) *fault.Fault {
	if up == nil {
		return nil
	}
	if up.told() && x.work.req.Expect100 {
		if f := x.pass(goOn); f != nil {
			return f
		}
	}
	up.invited()
	<-up.done
	up.stop()
	switch why := x.reason(); {
	case up.complete():
		return nil
	case up.fault != nil:
		return up.fault
	case why.cancelled():
		return why.fault()
	default:
		return fault.New(fault.UpgradeFailed, errors.New("the upstream switched protocols but did not take the request's body"))
	}
}

// fromUpstream passes on what the upstream sends, to its end.
func (x *session) fromUpstream() *fault.Fault {
	w := x.work
	e := &w.exchange
	for {
		f := x.more(conn.LargeBuffer)
		switch {
		case f == nil:
		case errors.Is(f.Err, io.EOF):
			if x.socket.CloseWrite() != nil {
				return fault.New(fault.CallerGone, errors.New("the caller's connection broke"))
			}
			return nil
		default:
			return f
		}
		e.received += int64(w.uw - w.ur)
		if f := x.pass(w.up.B[w.ur:w.uw]); f != nil {
			return f
		}
		x.touchTunnel()
	}
}

func (x *session) touchTunnel() {
	x.deadline.Store(x.after(x.work.exchange.route.Upstream.Timeout().TunnelIdle))
}

// tunnel is the direction from the caller to the upstream.
type tunnel struct {
	x    *session
	in   *conn.Buffer
	w    int
	done chan struct{}

	ended atomic.Bool // the caller ended its side

	// What follows may be read once done is closed.
	sent  int64
	fault *fault.Fault
}

func (t *tunnel) carry() {
	defer close(t.done)
	x := t.x
	up := x.work.exchange.conn
	for {
		if t.w > 0 {
			_, err := up.Write(t.in.B[:t.w])
			if err == nil {
				err = up.Flush()
			}
			if errors.Is(err, conn.ErrInterrupted) {
				return
			}
			if err != nil {
				t.end(up.Fault(fault.PhaseSend, err))
				return
			}
			t.sent += int64(t.w)
		}
		n, err := x.socket.Read(t.in.B)
		t.w = n
		switch {
		case n > 0:
			x.touchTunnel()
		case errors.Is(err, io.EOF):
			t.ended.Store(true)
			_ = up.CloseWrite() // the other direction reports what is wrong with it
			return
		case errors.Is(err, conn.ErrInterrupted):
			return // the other direction broke, or somebody cancelled
		default:
			t.end(fault.New(fault.CallerGone, err))
			return
		}
	}
}

// end breaks the tunnel off: half of one is of no use.
func (t *tunnel) end(f *fault.Fault) {
	t.fault = f
	if c := t.x.up.Load(); c != nil {
		c.Interrupt()
	}
	t.x.socket.Interrupt()
}
