package proxy

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/breaker"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// mostPause bounds the pause before a retry. An upstream whose Retry-After asks for more is not asked again: its answer
// is passed on, and the caller sees the time himself.
const mostPause = 10 * time.Second

// condition is the one of retry.on that holds for a try which ended in f, or which has the head of an answer; 0: none.
func (x *session) condition(f *fault.Fault) upstream.Condition {
	e := &x.work.exchange
	switch {
	case e.try.Endpoint == nil:
	case f == nil:
		switch x.work.resp.Status {
		case 502:
			return upstream.On502
		case 503:
			return upstream.On503
		case 504:
			return upstream.On504
		}
	case e.conn == nil:
		if upstream.OutcomeOf(f) == upstream.Failure {
			return upstream.OnConnect
		}
	case f == errUnanswered && e.conn.Unsent():
		return upstream.OnUnsent
	case f == errUnanswered:
		return upstream.OnReset
	case x.reason() == cancelHeader:
		return upstream.OnTimeout
	}
	return 0
}

// retry gives up a try that ended in f, or has the head of an answer, and makes the session ready for another. False:
// there is to be none, and nothing was given up.
func (x *session) retry(ctx context.Context, f *fault.Fault, why upstream.Condition) bool {
	e, u := &x.work.exchange, x.work.exchange.route.Upstream
	if !x.repeatable(why) {
		return false
	}
	now := time.Now()
	other := u.Other(now, &e.tried)
	e.silent = e.silent || why == upstream.OnConnect && silence(f)
	pause, ok := x.pauseBefore(now, f, why, other)
	latest := e.start.Add(u.Timeout().Request)
	if why == upstream.OnConnect && e.connectBy.Before(latest) {
		latest = e.connectBy
	}
	// What fails often is not asked more often for that.
	if !ok || !now.Add(pause).Before(latest) || u.Breaker().State() == breaker.Open {
		return false
	}
	// Of a request for which there was no connection, nothing was sent. Another address gets it once, and no upstream more.
	if elsewhere := other && why == upstream.OnConnect; !elsewhere && !u.Budget().Retry(now) {
		u.Metrics().RetryDenied()
		return false
	}
	x.tryFailed(f, true)
	u.Metrics().Retried(retryReason(why))
	e.retries++
	x.abandonTry(now, f)
	ends := x.server.now(e.start) + int64(u.Timeout().Request)
	if x.reason() == cancelHeader {
		x.revive(phaseRequest, ends)
	} else {
		x.advance(phaseRequest, ends) // if it was cancelled meanwhile, ask sees that
	}
	if pause > 0 {
		x.abandonable(ctx, func(ctx context.Context) {
			t := time.NewTimer(pause)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		})
	}
	return true
}

// repeatable reports whether the settings and the request itself allow another try.
func (x *session) repeatable(why upstream.Condition) bool {
	e, r, p := &x.work.exchange, &x.work.req, x.work.exchange.route.Upstream.Retry()
	switch c := x.reason(); {
	case e.retries >= p.Attempts, !p.On.Has(why), e.begun:
		return false
	case c.cancelled() && c != cancelHeader:
		return false
	case why == upstream.OnConnect:
		return true // whatever there is of the request, none of it was used up
	}
	return e.whole && !e.streamed && r.Upgrade == nil && int64(e.end-e.body) <= p.MaxBody && allows(r, why)
}

// allows reports whether the request's method allows another try (RFC 9110 section 9.2.2).
func allows(r *http1.Request, why upstream.Condition) bool {
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS":
		return true
	case "TRACE", "PUT", "DELETE":
		return why != upstream.OnReset
	}
	return why == upstream.OnConnect || why == upstream.OnUnsent ||
		why != upstream.OnReset && r.Idempotency
}

// pauseBefore is how long to wait before another try. There is no reason to wait for an endpoint that was not tried, nor
// where a kept connection turned out to be dead.
func (x *session) pauseBefore(now time.Time, f *fault.Fault, why upstream.Condition, other bool) (pause time.Duration, ok bool) {
	e, u := &x.work.exchange, x.work.exchange.route.Upstream
	switch {
	case other:
		return 0, true
	case why == upstream.OnConnect && (e.silent || lasting(f)):
		return 0, false
	case e.conn != nil && f == errUnanswered && e.conn.Reused():
		return 0, true
	}
	if f == nil {
		after, _ := x.work.resp.Get(http1.RetryAfter)
		if pause = retryAfter(now, after); pause > mostPause {
			return 0, false
		}
	}
	backoff := min(u.Retry().Backoff<<min(e.retries, 20), mostPause)
	return max(pause, backoff/2+rand.N(backoff/2+1)), true //nolint:gosec // it spreads retries, and keeps no secret
}

// lasting reports whether the same endpoint would most likely end another try in f as well: certificates do not change
// from one moment to the next.
func lasting(f *fault.Fault) bool {
	switch f.Token.ProxyError() {
	case "tls_certificate_error", "tls_alert_received":
		return true
	}
	return false
}

// silence reports whether timeout.connect or timeout.tls_handshake ended a try: each further one of the same endpoint would
// most likely take as long again. retry.try_timeout is a shorter time for one try, set so that there can be more of them.
func silence(f *fault.Fault) bool {
	return (f.Token == fault.ConnectionTimeout || f.Token == fault.TLSHandshakeTimeout) && !errors.Is(f.Err, errTryTimeout)
}

// retryAfter reads the field of that name, RFC 9110 section 10.2.3. What it does not understand is 0.
func retryAfter(now time.Time, value []byte) time.Duration {
	if len(value) == 0 {
		return 0
	}
	if n, err := strconv.ParseUint(string(value), 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", string(value)); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// abandonTry lets go of the endpoint, and of the connection if there is one.
func (x *session) abandonTry(now time.Time, f *fault.Fault) {
	e := &x.work.exchange
	o := upstream.Failure
	switch {
	case e.conn == nil:
		e.route.Upstream.Metrics().HandshakeError(string(f.Token))
	case f == nil:
		x.discard()
	default:
		if f == errUnanswered && e.conn.Reused() {
			o, e.stale = upstream.Abandoned, e.try.Endpoint // servers may close what is idle
		}
		x.drop(f)
	}
	x.leaveEndpoint(now, o)
	e.over = time.Time{}
}

// discard gives up a response of which the head was read. If the rest has arrived as well, and the request had no body, its
// connection can be kept.
func (x *session) discard() {
	w := x.work
	r := &w.resp
	whole := false
	switch r.Framing {
	case http1.NoBody:
		whole = true
	case http1.Length:
		if whole = int64(w.uw-w.ur) >= r.ContentLength; whole {
			w.ur += int(r.ContentLength)
		}
	case http1.Chunked:
		w.chunks.Reset()
		for n := 1; n > 0 && !w.chunks.Done(); {
			var err error
			if _, n, err = w.chunks.Next(w.up.B[w.ur:w.uw], &x.snap.Limits.HTTP); err != nil {
				break
			}
			w.ur += n
		}
		whole = w.chunks.Done()
	}
	if whole && !hasBody(&w.req) { // the next try does not wait until the connection has rested
		x.conclude(nil)
	} else {
		x.closeConn(metrics.ClosedByResponse)
	}
}

func retryReason(why upstream.Condition) metrics.RetryReason {
	switch why {
	case upstream.OnConnect:
		return metrics.RetryConnect
	case upstream.OnUnsent:
		return metrics.RetryUnsent
	case upstream.OnReset:
		return metrics.RetryReset
	case upstream.On502:
		return metrics.RetryBadGateway
	case upstream.On503:
		return metrics.RetryUnavailable
	case upstream.On504:
		return metrics.RetryGateway
	default:
		return metrics.RetryTimeout
	}
}

// collectable reports whether the request's body, which is still arriving, is to be there as a whole before the request
// is sent, so that it can be sent again.
func (x *session) collectable() bool {
	e, r, p := &x.work.exchange, &x.work.req, x.work.exchange.route.Upstream.Retry()
	if e.whole || r.Framing != http1.Length || r.ContentLength > p.MaxBody || r.Expect100 || r.Upgrade != nil || p.Attempts == 0 {
		return false
	}
	for _, why := range [...]upstream.Condition{upstream.OnReset, upstream.On502, upstream.On503, upstream.On504, upstream.OnTimeout} {
		if p.On.Has(why) && allows(r, why) {
			return true
		}
	}
	return false
}

// collect reads the rest of the request's body.
func (x *session) collect() *fault.Fault {
	w := x.work
	e, t := &w.exchange, w.exchange.route.Upstream.Timeout()
	e.end = e.body + int(w.req.ContentLength)
	if e.end > len(w.in.B) {
		w.grow(x.buffers, e.end)
	}
	x.overall.Store(x.server.now(e.start) + int64(t.Request))
	x.proceed(phaseUpload, x.uploadDeadline(t), phaseRequest)
	for w.w < e.end {
		n, err := x.socket.Read(w.in.B[w.w:e.end])
		w.w += n
		if n > 0 {
			x.touchUpload()
			continue
		}
		if why := x.reason(); why.cancelled() {
			return why.fault()
		}
		if errors.Is(err, io.EOF) {
			err = errBodyCut
		}
		return fault.New(fault.CallerGone, err)
	}
	e.whole, e.parts = true, true
	x.proceed(phaseRequest, x.overall.Load(), phaseUpload)
	return nil
}
