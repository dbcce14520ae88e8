package proxy

import (
	"errors"
	"io"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

// respond passes the final response on, whose head is parsed. The upload, if there is one, may still be going on.
func (x *session) respond(up *upload) *fault.Fault {
	w := x.work
	e, r := &w.exchange, &w.resp
	x.leaveGate()
	out, closing := r.OutFraming(w.req.Minor)
	if up != nil {
		up.told()
		if !up.settled() {
			// The rest of the request has nowhere to go once the response is through.
			e.last, e.early = true, true
		}
	}
	e.last = e.last || closing || x.leaving()
	rewrite := e.route.Response
	rewrite.CallerMinor = w.req.Minor
	rewrite.Close = e.last
	rewrite.KeepAlive10 = w.req.KeepAliveToken && !e.last
	rewrite.Host = w.req.Host
	rewrite.Date = *x.server.date.Load()
	e.status, e.upstream, e.answered = r.Status, true, true

	var f *fault.Fault
	switch r.Framing {
	case http1.NoBody:
		f = x.pass(r.Append(x.behind(w.up, w.uw), &rewrite))
	case http1.Length:
		f = x.passLength(r.Append(x.behind(w.up, w.uw), &rewrite))
	default:
		head := x.takeOut()
		head.B = r.Append(head.B, &rewrite)
		f = x.passDecoded(out)
	}
	if f = x.settle(up, f); f != nil {
		return f
	}
	x.conclude(up)
	return nil
}

// headroom is free before a response in up, for what our head is longer than the upstream's. The rest of a small buffer holds
// more than the largest record, so that one never fills it.
const headroom = conn.SmallBuffer - 16<<10 - 1

// behind is where to write what becomes of the message in b, which ends at n: behind it, or into an empty out when there might
// be too little room.
func (x *session) behind(b *conn.Buffer, n int) []byte {
	if len(b.B)-n > n {
		return b.B[n:n]
	}
	return x.takeOut().B
}

// pass sends b to the caller.
func (x *session) pass(b []byte) *fault.Fault {
	if _, err := x.socket.Write(b); err != nil {
		if why := x.reason(); why.cancelled() {
			return why.fault()
		}
		return fault.New(fault.CallerGone, err)
	}
	return nil
}

// streaming enters the phase in which each part of the body gives the next one time to come.
func (x *session) streaming() *fault.Fault {
	x.shift.Lock()
	defer x.shift.Unlock()
	if !x.advance(phaseStream, x.after(x.work.exchange.route.Upstream.Timeout().Idle)) {
		return x.reason().fault()
	}
	return nil
}

// touch gives the next part of a body time to come.
func (x *session) touch() {
	x.deadline.Store(x.after(x.work.exchange.route.Upstream.Timeout().Idle))
}

// passLength passes a body with Content-Length on, behind head, in the pieces in which it comes.
func (x *session) passLength(head []byte) *fault.Fault {
	w := x.work
	e := &w.exchange
	left := w.resp.ContentLength
	piece := w.up.B[w.ur:w.uw]
	if int64(len(piece)) > left {
		piece = piece[:left]
	}
	before := w.up.B[:w.ur]
	w.ur += len(piece)
	left -= int64(len(piece))
	e.received += int64(len(piece))
	switch at := len(before) - len(head); {
	case at >= 0: // in the place of the upstream's, which is not needed any more
		copy(before[at:], head)
		head, piece = w.up.B[at:w.ur], nil
	case len(head)+len(piece) <= cap(head):
		head, piece = append(head, piece...), nil
	}
	if f := x.pass(head); f != nil {
		return f
	}
	if len(piece) > 0 {
		if f := x.pass(piece); f != nil {
			return f
		}
	}
	if left == 0 {
		return nil
	}
	x.putOut() // pieces go from where they were read to
	if f := x.streaming(); f != nil {
		return f
	}
	for left > 0 {
		if f := x.more(left); f != nil {
			return f
		}
		piece := w.up.B[w.ur:w.uw]
		if int64(len(piece)) > left {
			piece = piece[:left]
		}
		w.ur += len(piece)
		left -= int64(len(piece))
		e.received += int64(len(piece))
		if f := x.pass(piece); f != nil {
			return f
		}
		x.touch()
	}
	return nil
}

// more reads what the upstream sends next into up, which has been dealt with. When much comes it reads much at a time.
// want is how much is still to come, as far as that is known.
func (x *session) more(want int64) *fault.Fault {
	w := x.work
	e := &w.exchange
	switch isLarge := len(w.up.B) >= conn.LargeBuffer; {
	case !isLarge && want > conn.SmallBuffer && e.conn.Ready():
		if large := x.buffers.Large(); large != nil {
			x.buffers.Put(w.up)
			w.up = large
		}
	case isLarge && x.buffers.Scarce():
		x.buffers.Put(w.up)
		w.up = nil
	}
	w.ur, w.uw = 0, 0
	w.resp.Release() // the head lies in up, too
	if w.up != nil && len(w.up.B) >= conn.LargeBuffer {
		e.conn.Expect(want)
	} else {
		e.conn.Expect(0) // whatever comes fills it
		x.buffers.Put(w.up)
		w.up = nil
		e.conn.Await()
		w.up = x.buffers.Small()
	}
	n, err := e.conn.Read(w.up.B)
	if n > 0 && len(w.up.B) >= conn.LargeBuffer {
		var m int
		m, err = e.conn.ReadMore(w.up.B[n:])
		n += m
	}
	w.uw = n
	if n > 0 {
		return nil // an error comes again
	}
	if why := x.reason(); why.cancelled() {
		return why.fault()
	}
	return &fault.Fault{Token: fault.ResponseTruncated, Status: fault.ResponseTruncated.Status(), Err: err}
}

// passDecoded passes a body on that is told apart by chunks or by the end of the connection, framed anew. The head is
// in out.
func (x *session) passDecoded(out http1.Framing) *fault.Fault {
	w := x.work
	e, chunked := &w.exchange, w.resp.Framing == http1.Chunked
	if chunked {
		w.chunks.Reset()
	}
	streaming := false
	for {
		for w.uw > w.ur {
			piece, n, err := w.up.B[w.ur:w.uw], w.uw-w.ur, error(nil)
			if chunked {
				if piece, n, err = w.chunks.Next(piece, &x.snap.Limits.HTTP); err != nil {
					_ = x.passOut() // what came before was in order
					return badResponse(err)
				}
			}
			w.ur += n
			e.received += int64(len(piece))
			if f := x.gather(piece, out); f != nil {
				return f
			}
			if n == 0 {
				break
			}
		}
		if chunked && w.chunks.Done() {
			if out == http1.Chunked {
				last := x.output()
				last.B = http1.AppendLastChunk(last.B, w.resp.KeepTrailers(w.chunks.Trailers(), e.route.Response.Edits))
			}
			return x.passOut()
		}
		if f := x.passOut(); f != nil {
			return f
		}
		x.emptied()
		if !streaming {
			streaming = true
			if f := x.streaming(); f != nil {
				return f
			}
		}
		f := x.more(conn.LargeBuffer)
		if f != nil && !chunked && errors.Is(f.Err, io.EOF) {
			// The upstream said that this is the end, in TLS; anything else may have cut the body short.
			if out == http1.Chunked {
				return x.pass(http1.AppendLastChunk(x.takeOut().B, nil))
			}
			return nil
		}
		if f != nil {
			return f
		}
		x.touch()
	}
}

// gather puts a piece of the body into out, framed for the caller, and sends what there is when it does not fit.
func (x *session) gather(piece []byte, out http1.Framing) *fault.Fault {
	if len(piece) == 0 {
		return nil
	}
	w := x.work
	x.output()
	if len(w.out.B)+len(piece)+http1.ChunkFrame > cap(w.out.B) {
		if f := x.passOut(); f != nil {
			return f
		}
		if len(piece)+http1.ChunkFrame > cap(w.out.B) {
			if large := x.buffers.Large(); large != nil {
				x.buffers.Put(w.out)
				w.out = large
				w.out.B = w.out.B[:0]
			}
		}
	}
	for { // once, unless there was no large buffer
		part := piece[:min(len(piece), cap(w.out.B)-len(w.out.B)-http1.ChunkFrame)]
		if out == http1.Chunked {
			w.out.B = http1.AppendChunk(w.out.B, part)
		} else {
			w.out.B = append(w.out.B, part...)
		}
		if piece = piece[len(part):]; len(piece) == 0 {
			return nil
		}
		if f := x.passOut(); f != nil {
			return f
		}
	}
}

// passOut sends what is in out, which is empty then.
func (x *session) passOut() *fault.Fault {
	w := x.work
	if w.out == nil || len(w.out.B) == 0 {
		return nil
	}
	f := x.pass(w.out.B)
	w.out.B = w.out.B[:0]
	return f
}

// emptied gives an empty out back before a wait, unless it is large and there are enough of those: then the next part will
// be much, too.
func (x *session) emptied() {
	if w := x.work; w.out != nil && (cap(w.out.B) < conn.LargeBuffer || x.buffers.Scarce()) {
		x.putOut()
	}
}

// output returns out with what is in it; it takes one when there is none.
func (x *session) output() *conn.Buffer {
	w := x.work
	if w.out == nil {
		w.out = x.buffers.Small()
		w.out.B = w.out.B[:0]
	}
	return w.out
}

// takeOut returns an empty out.
func (x *session) takeOut() *conn.Buffer {
	out := x.output()
	out.B = out.B[:0]
	return out
}

// putOut gives out back.
func (x *session) putOut() {
	x.buffers.Put(x.work.out)
	x.work.out = nil
}
