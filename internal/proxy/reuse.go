package proxy

import (
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// This file decides whether a connection to an upstream may carry another exchange: only when nothing of this one can still come on it.
// What has come by the time that it is used again is found by upstream.Endpoint.Take; what comes later must not be possible.

// conclude decides about the upstream's connection after a whole response.
func (x *session) conclude(up *upload) {
	w := x.work
	e := &w.exchange
	switch {
	case w.uw > w.ur, w.uw == len(w.up.B):
		// Bytes that nobody asked for, or room for not one more, so that there may be some: whose answer would they become?
	case w.resp.Close, w.resp.ConnectionAuth, w.req.ConnectionAuth:
	case up != nil && up.forced:
		x.unread = true
	case e.early:
		// What was still to be sent then may be taken for another request.
	case !hasBody(&w.req):
		x.keepConn(0, 0)
		return
	case !definesContent(w.req.Method):
		// The server may not have read it, and take it for the next request (RFC 9110 section 9.3.1).
	case w.resp.Status >= 400:
		// The server may have refused the request without reading its body.
		x.keepConn(0, x.late())
		return
	default:
		// The server may not care for bodies. Its answer to this one as to a request would reach the caller who sent it.
		x.keepConn(x.number, x.late())
		x.reserves = true
		return
	}
	x.closeConn(metrics.ClosedByResponse)
}

// An answer to what a request had as its body takes about as long as that to the request.
const (
	minLate = 20 * time.Millisecond
	maxLate = 2 * time.Second
)

// late is for how long such an answer may still come.
func (x *session) late() time.Duration {
	return min(max(2*x.server.time().Sub(x.work.exchange.start), minLate), maxLate)
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
	if x.reason().cancelled() { // only now: whoever cancels later finds no connection to interrupt
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
