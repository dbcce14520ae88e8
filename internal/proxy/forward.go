package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// mostInterim is how many 1xx responses may come before the final one.
const mostInterim = 16

// forward sends the request to the upstream and passes the response on.
func (x *session) forward(ctx context.Context) {
	e := &x.work.exchange
	for fresh := false; ; fresh = true {
		if f := x.connect(ctx, fresh); f != nil {
			x.fail(f)
			return
		}
		up := x.send()
		f := x.receive(up)
		if f == nil {
			return
		}
		// A kept connection that ended before a byte of the response came was most likely closed while our request was
		// on its way to it. What may be done twice is done again, once, on a connection of its own.
		again := f == errUnanswered && e.conn.Reused() && x.replayable()
		x.drop(f)
		if !again {
			if f == errUnanswered {
				f = fault.New(fault.ResponseReset, errors.New("the connection ended before a response began"))
			}
			x.fail(f)
			return
		}
		if t := e.route.Upstream.Timeout(); t.ResponseHeader < t.Request {
			x.advance(phaseRequest, x.server.now(e.start)+int64(t.Request)) // the wait for the response is over for now
		}
	}
}

// connect finds a connection for the exchange: a kept one, unless it has to be fresh.
func (x *session) connect(ctx context.Context, fresh bool) *fault.Fault {
	e := &x.work.exchange
	var c *upstream.Conn
	now := e.start
	if e.waited {
		now = time.Now()
	}
	if !fresh {
		c = e.try.Endpoint.Take(now)
	}
	for c == nil {
		var err error
		at := e.try.Endpoint
		x.abandonable(ctx, func(ctx context.Context) { c, err = at.Dial(ctx) })
		if err == nil {
			break
		}
		f := fault.Classify(fault.PhaseConnect, err)
		if !x.elsewhere(ctx, f) {
			return f
		}
		if !fresh {
			c = e.try.Endpoint.Take(time.Now())
		}
	}
	e.conn = c
	x.up.Store(c)
	if why := x.reason(); why.cancelled() { // before anybody could know of c
		x.drop(nil)
		return why.fault()
	}
	return nil
}

// elsewhere moves an exchange that got no connection, for which f is the reason, to an endpoint that it has not tried. It
// reports whether there is one that takes it.
func (x *session) elsewhere(ctx context.Context, f *fault.Fault) bool {
	e, u := &x.work.exchange, x.work.exchange.route.Upstream
	if upstream.OutcomeOf(f) != upstream.Failure || e.tried.Len() >= u.Len() || x.reason().cancelled() {
		return false
	}
	x.leaveEndpoint(time.Now(), upstream.Failure)
	if x.enter(ctx) != nil {
		x.leaveEndpoint(time.Now(), upstream.Abandoned) // f is not about this one
		return false
	}
	u.Metrics().HandshakeError(string(f.Token))
	return true
}

// replayable reports whether the request may be sent twice: its method says so (RFC 9110 section 9.2.2), and all of it is
// still there.
func (x *session) replayable() bool {
	e, r := &x.work.exchange, &x.work.req
	if !e.whole || e.streamed || e.answered || x.reason().cancelled() {
		return false
	}
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return r.Upgrade == nil
	}
	return false
}

// send writes the request's head, and its body if that is there. Otherwise it returns the upload that goes on with it.
// Failures show when the response is read: what the upstream said before it hung up explains more.
func (x *session) send() *upload {
	w := x.work
	e, r := &w.exchange, &w.req
	if w.out == nil {
		w.out = x.buffers.Small()
	}
	rewrite := e.route.Request
	if rewrite.Forwarded == http1.ForwardedAdd {
		if x.forwarded == nil {
			x.forwarded = http1.AppendForwardedFor(nil, x.address)
		}
		rewrite.ForwardedElement, rewrite.CallerAddress = x.forwarded, x.address
	}
	if rewrite.Host == "" {
		rewrite.Host = e.conn.Endpoint().Host()
	}
	if rewrite.Host == "" && len(r.Host) == 0 {
		rewrite.Host = e.conn.Endpoint().ServerName() // HTTP/1.0 has none to preserve
	}
	w.out.B = r.Append(w.out.B[:0], &rewrite)
	t := e.route.Upstream.Timeout()
	if e.whole {
		body := w.in.B[e.body:e.end]
		e.sent = int64(len(body))
		if len(w.out.B)+len(body) <= cap(w.out.B) {
			w.out.B = append(w.out.B, body...)
			body = nil
		}
		_, _ = e.conn.Write(w.out.B)
		if len(body) > 0 {
			_, _ = e.conn.Write(body)
		}
		if t.ResponseHeader < t.Request {
			x.await(phaseRequest, t)
		}
		return nil
	}
	_, _ = e.conn.Write(w.out.B)
	return x.startUpload(t)
}

// await begins the wait for the response's head, which timeout.response_header or timeout.request ends, whichever
// comes first.
func (x *session) await(from phase, t *upstream.Timeout) {
	header := x.after(t.ResponseHeader)
	if request := x.server.now(x.work.exchange.start) + int64(t.Request); request <= header {
		x.proceed(phaseRequest, request, from)
		return
	}
	x.proceed(phaseHeader, header, from)
}

// errUnanswered is what receive returns when the connection ended before the response began. It never leaves forward.
var errUnanswered = &fault.Fault{Token: fault.ResponseReset, Status: fault.ResponseReset.Status()}

// receive reads the response and passes it on. The fault it returns is one after which the caller can still be answered,
// or else has to be cut off; nil: the exchange is complete.
func (x *session) receive(up *upload) *fault.Fault {
	w := x.work
	e := &w.exchange
	if w.up == nil {
		w.up = x.buffers.Small()
	}
	for interim := 0; ; {
		f := x.receiveHead(interim == 0)
		if f != nil {
			return x.settle(up, f)
		}
		switch r := &w.resp; {
		case r.Status == 101:
			return x.settle(up, x.upgrade())
		case !r.Interim():
			return x.respond(up)
		}
		if interim++; interim > mostInterim {
			return x.settle(up, fault.New(fault.ResponseMalformed, errors.New("too many interim responses")).
				WithDetail("The upstream sent more than 16 interim responses (1xx) to one request."))
		}
		if w.req.Minor > 0 {
			rewrite := e.route.Response
			rewrite.CallerMinor = w.req.Minor
			w.out.B = w.resp.Append(w.out.B[:0], &rewrite)
			if f := x.pass(w.out.B); f != nil {
				return x.settle(up, f)
			}
			if up != nil && w.resp.Status == 100 {
				up.invited()
			}
		}
	}
}

// receiveHead reads until the head of a response is parsed, the first one to this request or one after others.
func (x *session) receiveHead(first bool) *fault.Fault {
	w := x.work
	e := &w.exchange
	head := string(w.req.Method) == "HEAD"
	w.resp.Reset()
	for ; ; first = false {
		if w.uw > w.ur {
			n, err := w.resp.Parse(w.up.B[w.ur:w.uw], head, &x.snap.Limits.HTTP)
			if err != nil {
				return badResponse(err)
			}
			if n > 0 {
				w.ur += n
				return nil
			}
		}
		w.makeUpRoom(x.buffers, x.snap.Limits.HTTP.MaxHead)
		n, err := e.conn.Read(w.up.B[w.uw:])
		w.uw += n
		if n > 0 {
			continue
		}
		if why := x.reason(); why.cancelled() {
			return why.fault()
		}
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if f := e.conn.Fault(fault.PhaseReceive, err); !ended && f.Token != fault.ResponseReset {
			return f
		}
		if first && w.uw == w.ur {
			return errUnanswered
		}
		return fault.New(fault.ResponseReset, err)
	}
}

func badResponse(err error) *fault.Fault {
	e, ok := errors.AsType[*http1.Error](err)
	if !ok {
		return fault.New(fault.ResponseMalformed, err)
	}
	token := fault.ResponseMalformed
	if e.Kind == http1.HeadTooLarge {
		token = fault.ResponseHeaderTooLarge
	}
	return fault.New(token, err).WithDetail("The upstream's response is not one we can pass on: " + e.Detail + ".")
}

// makeUpRoom is makeRoom for what the upstream sends.
func (w *work) makeUpRoom(b *conn.Buffers, most int) {
	if w.ur == w.uw {
		w.ur, w.uw = 0, 0
	}
	if w.uw < len(w.up.B) {
		return
	}
	if w.ur > 0 {
		w.uw = copy(w.up.B, w.up.B[w.ur:w.uw])
		w.ur = 0
		return
	}
	larger := b.Large()
	if most >= len(larger.B) {
		larger = &conn.Buffer{B: make([]byte, most+conn.SmallBuffer)}
	}
	copy(larger.B, w.up.B)
	b.Put(w.up)
	w.up = larger
}

// settle ends the upload, which may know better than f what went wrong.
func (x *session) settle(up *upload, f *fault.Fault) *fault.Fault {
	if up == nil {
		return f
	}
	up.stop()
	if f != nil && up.fault != nil {
		return up.fault
	}
	return f
}

// drop gives up the upstream's connection.
func (x *session) drop(f *fault.Fault) {
	w := x.work
	e := &w.exchange
	why := metrics.ClosedFault
	switch {
	case f == nil, f.Token.Blame() == fault.Caller:
		why = metrics.ClosedCallerGone
	case f == errUnanswered:
		why = metrics.ClosedByUpstream
	}
	x.up.Store(nil)
	e.conn.Close(why)
	e.conn = nil
	w.ur, w.uw = 0, 0
}

// giveBack lets the upstream's connection go after a whole response.
func (x *session) giveBack(keep bool, why metrics.CloseReason) {
	w := x.work
	e := &w.exchange
	x.up.Store(nil)
	if keep && x.reason().cancelled() { // only now: whoever cancels later finds no connection to interrupt
		keep, why = false, metrics.ClosedCallerGone
	}
	if keep {
		promise := time.Duration(-1)
		if t := w.resp.KeepAliveTimeout; t >= 0 {
			promise = time.Duration(t) * time.Second
		}
		e.over = time.Now()
		e.conn.Keep(e.over, promise)
	} else {
		e.conn.Close(why)
	}
	e.conn = nil
	w.ur, w.uw = 0, 0
}
