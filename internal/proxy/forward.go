package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// forward sends the request to the upstream and passes the response on. A try that comes to nothing is followed by
// another where the upstream's retry and the request allow it.
func (x *session) forward(ctx context.Context) {
	e := &x.work.exchange
	u := e.route.Upstream
	if u.Retry().Attempts > 0 {
		u.Budget().Request(e.start)
	}
	for {
		f := x.ask(ctx)
		why := x.condition(f)
		if why != 0 && x.retry(ctx, f, why) {
			continue
		}
		if why != 0 {
			x.tryFailed(f, false)
		}
		x.deliver(f)
		return
	}
}

// ask makes one try: it sends the request and reads the head of the final response. What it leaves when there is a fault
// is for deliver or retry to clear away.
func (x *session) ask(ctx context.Context) *fault.Fault {
	e := &x.work.exchange
	if e.try.Endpoint == nil { // there was a try before
		if why := x.reason(); why.cancelled() {
			return why.fault()
		}
		if f := x.enter(ctx); f != nil {
			return f
		}
	}
	if d := e.route.Upstream.Retry().TryTimeout; d > 0 {
		e.tryEnds = x.server.now(time.Now()) + int64(d)
	}
	if f := x.connect(ctx); f != nil {
		return f
	}
	e.upload = x.send()
	f := x.receive(e.upload)
	if f != nil {
		f = x.settle(e.upload, f)
	}
	return f
}

// deliver passes on the response whose head ask read, or says f.
func (x *session) deliver(f *fault.Fault) {
	w := x.work
	e := &w.exchange
	if f == nil {
		if w.resp.Status == 101 {
			f = x.settle(e.upload, x.upgrade())
		} else {
			f = x.respond(e.upload)
		}
		if f == nil {
			return
		}
	}
	if e.conn != nil {
		x.drop(f)
	}
	if f == errUnanswered {
		f = fault.New(fault.ResponseReset, errors.New("the connection ended before a response began"))
	}
	x.fail(f)
}

// connect finds a connection for the try: a kept one, unless those of the endpoint are in doubt. For a caller that may have gone
// meanwhile it looks first: nothing is done in the name of one that has given up.
func (x *session) connect(ctx context.Context) *fault.Fault {
	e := &x.work.exchange
	if (e.waited || e.parts || e.retries > 0 || x.turn.Load() == 0) && x.deserted() {
		return cancelGone.fault()
	}
	var c *upstream.Conn
	now := e.start
	if e.waited || e.retries > 0 {
		now = time.Now()
	}
	if at := e.try.Endpoint; at != e.stale {
		if x.reserves {
			c = at.TakeReserved(now, x.number)
		}
		if c == nil {
			c = at.Take(now)
		}
	}
	if c == nil {
		var f *fault.Fault
		if c, f = x.dial(ctx); f != nil {
			return f
		}
		if x.deserted() {
			c.Keep(time.Now(), -1)
			return cancelGone.fault()
		}
	}
	e.conn = c
	x.connectionChosen()
	x.up.Store(c)
	if why := x.reason(); why.cancelled() { // before anybody could know of c
		x.drop(nil)
		return why.fault()
	}
	return nil
}

// Why dial has no connection where neither timeout.connect nor timeout.tls_handshake ended the try. The fault is that of the
// phase which the try was in.
var (
	errTryTimeout    = fmt.Errorf("retry.try_timeout is over: %w", context.DeadlineExceeded)
	errConnectBudget = fmt.Errorf("timeout.connect and timeout.tls_handshake together are over: %w", context.DeadlineExceeded)
)

// dial makes a new connection to the try's endpoint, or to another, which is the try's then, where that one is silent.
// timeout.connect and timeout.tls_handshake together bound all tries to get this one connection.
func (x *session) dial(ctx context.Context) (*upstream.Conn, *fault.Fault) {
	e, now := &x.work.exchange, time.Now()
	u := e.route.Upstream
	if e.connectBy.IsZero() {
		e.connectBy = now.Add(u.Timeout().Connect + u.Timeout().TLSHandshake)
	}
	end, why := e.connectBy, errConnectBudget
	if limit := u.Retry().TryTimeout; limit > 0 && now.Add(limit).Before(end) {
		end, why = now.Add(limit), errTryTimeout
	}
	var (
		c   *upstream.Conn
		err error
	)
	x.abandonable(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithDeadlineCause(ctx, end, why)
		defer cancel()
		c, err = u.Dial(ctx, &e.try, &e.tried)
	})
	f := fault.Classify(fault.PhaseConnect, err)
	switch {
	case f == nil:
		e.connectBy = time.Time{}
		return c, nil
	case errors.Is(f.Err, errTryTimeout):
		return nil, f.WithDetail("No connection to the upstream came about within retry.try_timeout.").
			WithFix("Check the way to the upstream, or raise retry.try_timeout.")
	case errors.Is(f.Err, errConnectBudget):
		return nil, f.WithDetail("No connection to the upstream came about within timeout.connect and timeout.tls_handshake together, all tries included.").
			WithFix("Check the way to the upstream and that its port speaks TLS, or raise timeout.connect or timeout.tls_handshake.")
	}
	return nil, f
}

// send writes the request's head, and its body if that is there. Otherwise it returns the upload that goes on with it.
// Failures show when the response is read: what the upstream said before it hung up explains more.
func (x *session) send() *upload {
	w := x.work
	e, r := &w.exchange, &w.req
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
	defer x.putOut() // if there is one, who waits needs no more of it
	out := r.Append(x.behind(w.in, w.w), &rewrite)
	t := e.route.Upstream.Timeout()
	if !e.whole {
		_, _ = e.conn.Write(out)
		return x.startUpload(t)
	}
	if t.ResponseHeader < t.Request || e.tryEnds != 0 {
		x.await(phaseRequest, t)
	}
	body := w.in.B[e.body:e.end]
	e.sent = int64(len(body))
	if len(out)+len(body) <= cap(out) {
		out, body = append(out, body...), nil
	}
	_, _ = e.conn.Write(out)
	if len(body) > 0 {
		_, _ = e.conn.Write(body)
	}
	return nil
}

// await begins the wait for the response's head, which timeout.response_header, retry.try_timeout or timeout.request
// ends, whichever comes first.
func (x *session) await(from phase, t *upstream.Timeout) {
	header := x.after(t.ResponseHeader)
	if x.tryBounds(header) {
		header = x.work.exchange.tryEnds
	}
	if request := x.server.now(x.work.exchange.start) + int64(t.Request); request <= header {
		x.proceed(phaseRequest, request, from)
		return
	}
	x.proceed(phaseHeader, header, from)
}

// tryBounds reports whether retry.try_timeout ends this try before header. A request whose body is passed on while it
// arrives has one try, and the time that its caller takes for that is not the upstream's.
func (x *session) tryBounds(header int64) bool {
	e := &x.work.exchange
	return e.tryEnds != 0 && !e.streamed && e.tryEnds < header
}

// errUnanswered is what receive returns when the connection ended before the response began. deliver and retry know it.
var errUnanswered = &fault.Fault{Token: fault.ResponseReset, Status: fault.ResponseReset.Status()}

// receive reads the head of the final response, and passes on those that come before it.
func (x *session) receive(up *upload) *fault.Fault {
	w := x.work
	for interims := http1.Interims(0); ; {
		if f := x.receiveHead(interims == 0); f != nil {
			return f
		}
		if r := &w.resp; r.Status == 101 || !r.Interim() {
			return nil
		}
		if err := interims.Pass(); err != nil {
			return badResponse(err)
		}
		if w.req.Minor == 0 {
			continue
		}
		if f := x.passInterim(up); f != nil {
			return f
		}
	}
}

// passInterim passes an interim response on.
func (x *session) passInterim(up *upload) *fault.Fault {
	w := x.work
	w.exchange.begun = true
	if w.resp.Status == 100 { // bare, as it says one thing; some callers read no more of it than the first line and an empty one
		if up == nil {
			return x.pass(goOn)
		}
		if !up.told() {
			return nil
		}
		defer up.invited()
		return x.pass(goOn)
	}
	if up != nil {
		up.invitation.mu.Lock()
		defer up.invitation.mu.Unlock()
	}
	rewrite := w.exchange.route.Response
	rewrite.CallerMinor = w.req.Minor
	out := x.takeOut()
	defer x.putOut()
	out.B = w.resp.Append(out.B, &rewrite)
	return x.pass(out.B)
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
		if w.up == nil {
			e.conn.Await()
			w.up = x.buffers.Small()
		}
		w.makeUpRoom(x.buffers, x.snap.Limits.HTTP.MaxHead)
		n, err := e.conn.Read(w.up.B[w.uw:])
		w.uw += n
		if n > 0 {
			continue
		}
		return x.headless(first && w.uw == w.ur, err)
	}
}

// headless is why there is no head of a response where reading it ended in err, before a byte came or later.
func (x *session) headless(unanswered bool, err error) *fault.Fault {
	e := &x.work.exchange
	if why := x.reason(); why.cancelled() {
		f := why.fault()
		if t := e.route.Upstream; why == cancelHeader && e.tryEnds != 0 && !e.streamed && t.Retry().TryTimeout < t.Timeout().ResponseHeader {
			f = f.WithDetail("The upstream took the request but did not answer within retry.try_timeout.").
				WithFix("Find out what holds the upstream up, or raise retry.try_timeout.")
		}
		return f
	}
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if f := e.conn.Fault(fault.PhaseReceive, err); !ended && f.Token != fault.ResponseReset {
		return f
	}
	if unanswered {
		return errUnanswered
	}
	return fault.New(fault.ResponseReset, err)
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
		w.ur, w.uw = headroom, headroom
	}
	if w.uw < len(w.up.B) {
		return
	}
	if w.ur > 0 {
		w.uw = copy(w.up.B, w.up.B[w.ur:w.uw])
		w.ur = 0
		return
	}
	larger := b.AtLeast(most + conn.SmallBuffer)
	copy(larger.B, w.up.B)
	b.Put(w.up)
	w.up = larger
}

// settle ends the upload, if there is one, which may know better than f what went wrong.
func (x *session) settle(up *upload, f *fault.Fault) *fault.Fault {
	if up == nil {
		return f
	}
	silent := up.silence()
	up.stop()
	if f != nil && up.fault != nil {
		return up.fault
	}
	return attribute(f, silent)
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
