package proxy

import (
	"errors"
	"strconv"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// lingerFor is how long a caller has to read an answer that came before his request had ended. What he still sends is
// thrown away meanwhile: closing at once could destroy the answer on its way, RFC 9112 section 9.6.
const lingerFor = 2 * time.Second

// fail answers the exchange with f; a caller that has the head of another answer, or is gone, is cut off.
func (x *session) fail(f *fault.Fault) {
	e := &x.work.exchange
	e.fault = f
	if f.Status == fault.CallerGone.Status() || e.answered {
		if !e.answered {
			e.status = f.Status
		}
		e.last = true
		x.abort()
		return
	}
	e.status = f.Status
	unread := !e.whole
	e.last = e.last || unread || x.leaving()
	if x.reason().cancelled() {
		e.last = true
		x.reset(phaseStream, x.after(lingerFor)) // for the answer
	}
	x.write(x.problem(f))
	x.unread = x.unread || unread
}

// problem is the answer that says f.
func (x *session) problem(f *fault.Fault) []byte {
	e, r := &x.work.exchange, &x.work.req
	a := http1.Answer{
		Status: f.Status, ContentType: "application/problem+json", Fields: x.snap.Defaults,
		Head: string(r.Method) == "HEAD", Close: e.last, KeepAlive10: r.KeepAliveToken && !e.last,
		Date: *x.server.date.Load(),
	}
	a.Lines = append(a.Lines, "Proxy-Status: "...)
	a.Lines = f.AppendProxyStatus(a.Lines)
	a.Lines = append(a.Lines, "\r\nCache-Control: no-store\r\n"...)
	if f.RetryAfter > 0 {
		a.Lines = http1.AppendField(a.Lines, "Retry-After", strconv.FormatInt(seconds(f.RetryAfter), 10))
	}
	if f.Token == fault.MethodNotAllowed {
		a.Lines = http1.AppendField(a.Lines, "Allow", x.allow())
	}
	a.Body = f.AppendProblem(nil, string(x.requestID()))
	return http1.AppendAnswer(nil, &a)
}

// answerHere answers a request that is not to go any further, RFC 9110 section 7.6.2.
func (x *session) answerHere() {
	e, r := &x.work.exchange, &x.work.req
	if string(r.Method) != "OPTIONS" {
		x.fail(fault.New(fault.MethodNotAllowed, errors.New("a TRACE that ends here")))
		return
	}
	e.status = 200
	e.last = e.last || !e.whole || x.leaving()
	x.unread = !e.whole
	x.write(http1.AppendAnswer(nil, &http1.Answer{
		Status: 200, Fields: x.snap.Defaults, Close: e.last, KeepAlive10: r.KeepAliveToken && !e.last, Date: *x.server.date.Load(),
	}))
}

// write sends b to the caller, and reports whether it could.
func (x *session) write(b []byte) bool {
	if _, err := x.socket.Write(b); err != nil {
		x.closing, x.unread = true, false
		return false
	}
	return true
}

// abort makes sure that the caller does not take what it got for a whole answer. The connection breaks once the run has
// ended: within it the descriptor is held, and a close would wait for itself.
func (x *session) abort() {
	x.closing, x.unread, x.broken = true, false, true
}

// refuse answers bytes that are no request that we take. There is no telling where the next one would begin.
func (x *session) refuse(err error) {
	f := fault.New(fault.BadRequest, err)
	if e, ok := errors.AsType[*http1.Error](err); ok {
		f = fault.New(tokenOf(e.Kind), err).WithDetail(sentence(e.Detail))
	}
	x.refuseHead(f)
}

func tokenOf(k http1.Kind) fault.Token {
	switch k {
	case http1.LineTooLong:
		return fault.URITooLong
	case http1.HeadTooLarge:
		return fault.HeaderTooLarge
	case http1.VersionNotSupported:
		return fault.HTTPVersionNotSupported
	case http1.CodingNotSupported:
		return fault.TransferCodingNotSupported
	case http1.TLSHandshake:
		return fault.TLSOnPlainPort
	case http1.ConnectRefused:
		return fault.ConnectNotSupported
	case http1.ExpectationFailed:
		return fault.ExpectationFailed
	}
	return fault.BadRequest
}

// sentence makes a sentence of an error's text.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	b := []byte(text)
	if c := b[0]; c >= 'a' && c <= 'z' {
		b[0] = c - 'a' + 'A'
	}
	return string(append(b, '.'))
}

// refuseHead answers a request whose head did not arrive or is not one.
func (x *session) refuseHead(f *fault.Fault) {
	w := x.working()
	e := &w.exchange
	*e = exchange{start: time.Now(), counts: x.policy.Unrouted, last: true, body: w.w}
	w.req.Reset() // half of a head is none
	e.counts.Begin()
	if !x.advance(phaseRequest, x.after(lingerFor)) && x.reason() != cancelHead && x.reason() != cancelShed && x.reason() != cancelEvict {
		x.closing = true
	}
	x.fail(f)
	x.finish()
	x.closing = true
}

// turnAway answers a caller for whom there is no place.
func (x *session) turnAway(limit string) {
	x.metrics.Refused(metrics.RefusedByLimit)
	defer x.server.refusing.Add(-1)
	if x.server.refusing.Add(1) <= mostRefusing {
		f := fault.New(fault.ConnectionLimit, nil).WithDetail("As many connections are open as " + limit + " allows.").
			WithFix("Reuse connections, or raise " + limit + ".")
		f.RetryAfter = time.Second
		w := x.working()
		w.exchange = exchange{start: time.Now(), counts: x.policy.Unrouted, last: true}
		w.exchange.counts.Begin()
		x.fail(f)
		x.finish()
		x.linger()
	}
}

// linger lets the caller read the answer before the connection is closed.
func (x *session) linger() {
	if x.socket.CloseWrite() != nil {
		return
	}
	x.revive(phaseLinger, x.after(lingerFor))
	w := x.working()
	for {
		if _, err := x.socket.Read(w.in.B); err != nil {
			return
		}
	}
}
