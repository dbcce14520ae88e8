package proxy

import (
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// This file decides whether a connection to an upstream may carry another exchange: only when nothing of this one can still come on it.
// What has come by the time that it is used again is found by upstream.Endpoint.Take; what comes later must not be possible.

// reuse says whose exchanges a connection may carry next.
type reuse uint8

const (
	never      reuse = iota // it is closed
	byAnyone                // at once
	byCaller                // those of the same caller, and those of others after a rest
	afterARest              // nobody's before it has rested
)

// reuseAfter says that of the connection on which a whole response to req came. early is that the final response began before the
// body had been sent; reserved is that the connection had not rested when the exchange began.
func reuseAfter(req *http1.Request, resp *http1.Response, early, reserved bool) reuse {
	body := hasBody(req)
	switch {
	case resp.Close, resp.ConnectionAuth, req.ConnectionAuth:
		return never
	case early:
		return never // what was still to be sent then may be taken for another request
	case body && !definesContent(req.Method):
		return never // the server may not have read it, and take it for the next request (RFC 9110 section 9.3.1)
	case body && resp.Status >= 400:
		return afterARest // the server may have refused the request without reading its body
	case body:
		return byCaller // the server may ignore bodies; its answer to this one as a request reaches the caller who sent it
	case reserved:
		return byCaller // this response may have been that answer, and the one to this request is still to come
	}
	return byAnyone
}

// conclude decides about the upstream's connection after a whole response.
func (x *session) conclude(up *upload) {
	w := x.work
	e := &w.exchange
	next := reuseAfter(&w.req, &w.resp, e.early, e.conn.Reserved())
	switch {
	case w.uw > w.ur: // bytes that were not asked for
		if next != never {
			e.conn.Endpoint().Distrust(x.server.time(), next != byAnyone)
		}
		next = never
	case w.uw == len(w.up.B): // no room left to notice them
		next = never
	}
	if up != nil && up.forced {
		x.unread, next = true, never
	}
	switch next {
	case byAnyone:
		x.keepConn(0, 0)
	case byCaller:
		x.reserves = true
		x.keepConn(x.number, x.late(minLate))
	case afterARest:
		x.keepConn(0, x.late(minRest))
	default:
		x.closeConn(metrics.ClosedByResponse)
	}
}

// An answer to what a request had as its body takes about as long as that to the request. But a server, or this host, may be busy.
const (
	minLate = 100 * time.Millisecond
	minRest = 200 * time.Millisecond
	maxLate = 2 * time.Second
)

// late is for how long such an answer may still come.
func (x *session) late(least time.Duration) time.Duration {
	return min(max(2*x.server.time().Sub(x.work.exchange.start), least), maxLate)
}

func hasBody(r *http1.Request) bool {
	return r.Framing == http1.Chunked || r.Framing == http1.Length && r.ContentLength > 0
}

// definesContent reports whether a request with that method has content by the method's definition: RFC 9110 section 9.3, RFC 5789,
// the QUERY method, WebDAV (RFC 4918, RFC 3253, RFC 3744, RFC 4791, RFC 5323). A server that knows the method reads it.
func definesContent(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH", "QUERY",
		"PROPFIND", "PROPPATCH", "LOCK", "MKCOL", "REPORT", "ACL", "MKCALENDAR", "SEARCH":
		return true
	}
	return false
}

// keepConn gives the upstream's connection back to its pool. With late, it carries no exchange but owner's for that long.
func (x *session) keepConn(owner uint64, late time.Duration) {
	w := x.work
	e := &w.exchange
	x.up.Store(nil)
	if x.reason().cancelled() { // asked only now: a later cancellation finds no connection to interrupt
		x.closeConn(metrics.ClosedCallerGone)
		return
	}
	promise := time.Duration(-1)
	if t := w.resp.KeepAliveTimeout; t >= 0 {
		promise = time.Duration(t) * time.Second
	}
	e.over = x.server.time()
	if late > 0 {
		e.conn.Reserve(owner, e.over.Add(late))
	}
	e.conn.Keep(e.over, promise)
	e.conn = nil
	w.ur, w.uw = 0, 0
}

// closeConn closes the upstream's connection behind a response.
func (x *session) closeConn(why metrics.CloseReason) {
	w := x.work
	x.up.Store(nil)
	w.exchange.conn.Close(why)
	w.exchange.conn = nil
	w.ur, w.uw = 0, 0
}
