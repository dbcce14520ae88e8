package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// upload passes a request's body on while it arrives, beside the session, which waits for the response: that may come
// before the body has ended.
type upload struct {
	x          *session
	conn       *upstream.Conn
	in         *conn.Buffer // from the caller: in.B[r:w] is not dealt with
	r, w       int
	out        *conn.Buffer // framed for the upstream
	done       chan struct{}
	ended      atomic.Bool // the whole body was sent
	spent      atomic.Bool // the last of the body is being sent
	ceased     atomic.Bool // nothing more is read from the caller, for whatever reason
	stopped    atomic.Bool
	invitation invitation
	asking     atomic.Int64 // since when it waits for the caller, on the server's clock; 0: it does not

	// What follows may be read once done is closed.
	fault  *fault.Fault // why it ended early, if the caller or a limit is to blame
	held   bool         // it ended early while the upstream did not take what there was
	over   time.Time    // when it ended
	sent   int64
	forced bool // it was interrupted, and so are both connections, even if it has ended in the same moment
}

// startUpload begins to send the body. The head is written already, and goes with the first bytes.
func (x *session) startUpload(t *upstream.Timeout) *upload {
	w := x.work
	e := &w.exchange
	u := &upload{x: x, conn: e.conn, done: make(chan struct{}), in: x.buffers.AtLeast(w.w - e.body)}
	u.w = copy(u.in.B, w.in.B[e.body:w.w])
	e.streamed = true
	w.w = e.body // the head stays for the record; what the upload leaves over comes back behind it
	e.conn.Apart(true)
	x.overall.Store(x.server.now(e.start) + int64(t.Request))
	if w.req.Expect100 && u.w == 0 {
		x.await(phaseRequest, t) // until it sees a 100, the caller sends nothing
		u.inviteLater()
	} else {
		x.proceed(phaseUpload, x.uploadDeadline(t), phaseRequest)
	}
	go u.run(t)
	return u
}

// complete reports whether the whole body was sent.
func (u *upload) complete() bool { return u.ended.Load() }

// lastPiece is how long a response waits for an upstream to take the last piece of its request.
const lastPiece = 50 * time.Millisecond

// settled is complete, asked when the response is there. It may be faster than the goroutine that has just sent what it
// answers, and then that one is waited for, however busy the machine is: otherwise the caller would lose its connection for
// nothing. It is not waited for while the upstream does not read.
func (u *upload) settled() bool {
	if !u.spent.Load() || u.complete() {
		return u.complete()
	}
	t := time.NewTicker(lastPiece)
	defer t.Stop()
	for {
		select {
		case <-u.done:
			return u.complete()
		case <-t.C:
			if u.conn.WriteBlocked() {
				return u.complete()
			}
		}
	}
}

// silence is for how long the caller has sent nothing that the upload waits for.
func (u *upload) silence() time.Duration {
	since := u.asking.Load()
	if since == 0 {
		return 0
	}
	return max(1, time.Duration(u.x.server.now(u.x.server.time())-since))
}

// stop ends the upload, if it has not ended yet, and waits for that. What it read beyond the body goes back to the
// session.
func (u *upload) stop() {
	if u.stopped.Swap(true) {
		return
	}
	x := u.x
	u.withdraw()
	forced := !u.complete()
	if forced {
		x.socket.InterruptRead()
		u.conn.Interrupt()
	}
	<-u.done
	u.forced = forced
	u.conn.Apart(false)
	w := x.work
	e := &w.exchange
	e.sent = u.sent
	if !forced {
		u.handBack(w)
		e.whole, e.end = true, e.body
	}
	x.buffers.Put(u.in)
	x.buffers.Put(u.out)
}

// handBack gives the session what was read beyond the body.
func (u *upload) handBack(w *work) {
	over := u.in.B[u.r:u.w]
	if len(over) > len(w.in.B)-w.w {
		w.grow(u.x.buffers, w.w+len(over)+conn.SmallBuffer)
	}
	w.w += copy(w.in.B[w.w:], over)
}

func (u *upload) run(t *upstream.Timeout) {
	defer close(u.done)
	var err error
	if u.x.work.req.Framing == http1.Chunked {
		err = u.chunked()
	} else {
		err = u.length()
	}
	if err == nil {
		err = u.conn.Flush()
	}
	u.over = u.x.server.time()
	u.held = errors.Is(err, conn.ErrInterrupted) && u.asking.Load() == 0
	u.ceased.Store(true)
	if err == nil {
		u.ended.Store(true)
		u.x.await(phaseUpload, t)
		return
	}
	if u.fault != nil && u.fault.Token != fault.CallerGone {
		u.cancel(cancelBody)
	} else if u.fault != nil {
		u.cancel(cancelGone)
	} else {
		// The upstream does not take it. It may say why.
		u.x.await(phaseUpload, t)
	}
}

// cancel ends the exchange, unless that is done already.
func (u *upload) cancel(why phase) {
	for !u.stopped.Load() {
		w := u.x.word.Load()
		if phaseOf(w).cancelled() || u.x.cancel(w, why) {
			return
		}
	}
}

// length sends a body with Content-Length as it comes.
func (u *upload) length() error {
	left := u.x.work.req.ContentLength
	for {
		piece := u.in.B[u.r:u.w]
		if int64(len(piece)) > left {
			piece = piece[:left]
		}
		u.r += len(piece)
		left -= int64(len(piece))
		if left == 0 {
			u.spent.Store(true)
		}
		if len(piece) > 0 {
			if _, err := u.conn.Write(piece); err != nil {
				return err
			}
			u.sent += int64(len(piece))
		}
		if left == 0 {
			return nil
		}
		if err := u.more(left); err != nil {
			return err
		}
	}
}

// chunked sends a body in chunks of our own, as it comes.
func (u *upload) chunked() error {
	x := u.x
	e, body := &x.work.exchange, &x.work.body
	body.Reset()
	u.out = x.buffers.Small()
	u.out.B = u.out.B[:0]
	for {
		for u.r < u.w {
			piece, n, err := body.Next(u.in.B[u.r:u.w], &x.snap.Limits.HTTP)
			if err != nil {
				u.fault = badBody(err)
				return err
			}
			u.r += n
			if u.sent += int64(len(piece)); u.sent > e.route.MaxBody {
				u.fault = tooLarge(e.route.MaxBody)
				return u.fault
			}
			if err := u.gather(piece); err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
		if body.Done() {
			u.spent.Store(true)
			u.out.B = http1.AppendLastChunk(u.out.B, x.work.req.KeepTrailers(body.Trailers(), e.route.Request.Edits))
		}
		if _, err := u.conn.Write(u.out.B); err != nil {
			return err
		}
		u.out.B = u.out.B[:0]
		if body.Done() {
			return nil
		}
		if err := u.more(conn.LargeBuffer); err != nil {
			return err
		}
	}
}

// fullRecord is how much goes into one TLS record (RFC 8446 section 5.1); a small buffer holds it.
const fullRecord = 16 << 10

// gather puts a piece of the body into out, as chunks, and sends what there is when it is full.
func (u *upload) gather(piece []byte) error {
	for len(piece) > 0 {
		room := fullRecord - len(u.out.B) - http1.ChunkFrame
		if room <= 0 {
			if _, err := u.conn.Write(u.out.B); err != nil {
				return err
			}
			u.out.B = u.out.B[:0]
			continue
		}
		part := piece[:min(len(piece), room)]
		u.out.B = http1.AppendChunk(u.out.B, part)
		piece = piece[len(part):]
	}
	return nil
}

func badBody(err error) *fault.Fault {
	f := fault.New(fault.BadRequest, err)
	if e, ok := errors.AsType[*http1.Error](err); ok {
		f = fault.New(tokenOf(e.Kind), err).WithDetail(sentence(e.Detail))
	}
	return f
}

// more sends what was written and reads what the caller sends next. want is how much is still to come, as far as that is
// known: no more is read.
func (u *upload) more(want int64) error {
	if err := u.conn.Flush(); err != nil {
		return err
	}
	full, isLarge := u.w == len(u.in.B), len(u.in.B) >= conn.LargeBuffer
	u.r, u.w = 0, 0
	switch buffers := u.x.buffers; {
	case full && want > conn.SmallBuffer && !isLarge:
		if large := buffers.Large(); large != nil {
			buffers.Put(u.in)
			u.in = large
		}
	case isLarge && buffers.Scarce():
		buffers.Put(u.in)
		u.in = buffers.Small()
	}
	room := u.in.B
	if int64(len(room)) > want {
		room = room[:want]
	}
	u.asking.Store(u.x.server.now(u.x.server.time()))
	n, err := u.x.socket.Read(room)
	u.w = n
	if !errors.Is(err, conn.ErrInterrupted) {
		u.asking.Store(0)
	}
	switch {
	case n > 0:
		if u.invitation.timer != nil {
			u.told() // it does not wait for that
		}
		u.x.touchUpload()
		return nil
	case errors.Is(err, conn.ErrInterrupted):
	case errors.Is(err, io.EOF):
		u.fault = fault.New(fault.CallerGone, errBodyCut)
	default:
		u.fault = fault.New(fault.CallerGone, err)
	}
	return err
}

var errBodyCut = errors.New("the caller ended the connection in the middle of the request's body")

// touchUpload gives the next part of a request's body time to come. Where the response's has begun to, both together
// have that time.
func (x *session) touchUpload() {
	t := x.work.exchange.route.Upstream.Timeout()
	x.proceed(phaseUpload, x.uploadDeadline(t), phaseUpload, phaseHeader, phaseRequest)
	x.proceed(phaseStream, x.after(t.Idle), phaseStream)
}

// inviteAfter is how long a caller waits for the upstream's 100 before we say it: many a server reads bodies but never sends one, and
// some callers wait for it for ever (RFC 9110 section 10.1.1).
const inviteAfter = time.Second

// goOn is that.
var goOn = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// invitation is a 100 of our own.
type invitation struct {
	timer *time.Timer // nil where the caller does not wait
	done  chan struct{}

	mu   sync.Mutex // held to write to the caller before the final response, and guards told
	told bool
}

func (u *upload) inviteLater() {
	v := &u.invitation
	v.done = make(chan struct{})
	v.timer = time.AfterFunc(inviteAfter, func() {
		defer close(v.done)
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.told {
			return
		}
		v.told = true
		if _, err := u.x.socket.Write(goOn); err == nil {
			u.invited()
		}
	})
}

// told notes that the caller needs no 100 any more: it got one, or an answer, or sends without one. It reports whether that is new.
func (u *upload) told() (news bool) {
	v := &u.invitation
	v.mu.Lock()
	defer v.mu.Unlock()
	news = !v.told
	v.told = true
	return news
}

// withdraw sees to it that there is no invitation any more.
func (u *upload) withdraw() {
	if v := &u.invitation; v.timer != nil && !v.timer.Stop() {
		<-v.done
	}
}

// invited notes that the caller was told to go on: from here on it is its turn.
func (u *upload) invited() {
	x := u.x
	x.shift.Lock()
	defer x.shift.Unlock()
	if p := phaseOf(x.word.Load()); !u.ceased.Load() && (p == phaseHeader || p == phaseRequest) {
		x.advance(phaseUpload, x.uploadDeadline(x.work.exchange.route.Upstream.Timeout()))
	}
}

// uploadDeadline is when the next part has to be there, or everything.
func (x *session) uploadDeadline(t *upstream.Timeout) int64 {
	return min(x.after(t.Idle), x.overall.Load())
}
