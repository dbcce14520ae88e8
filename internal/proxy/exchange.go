package proxy

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/breaker"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/route"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// exchange is one request and what became of it.
type exchange struct {
	start  time.Time
	counts *metrics.Exchange
	route  *snapshot.Route // nil before one is found
	conn   *upstream.Conn  // nil before there is one

	inside bool // it has a place among limits.max_concurrent_requests
	pooled bool // it has a place among the endpoint's pool.max_active

	ticket breaker.Ticket // of the upstream's circuit breaker

	try     upstream.Try       // the endpoint that it uses, from admission to the end of the try
	tried   upstream.Tried     // that and those before it
	stale   *upstream.Endpoint // its kept connections turned out to be dead
	retries int                // tries after the first
	silent  bool               // a try got no connection within the upstream's timeouts
	tryEnds int64              // retry.try_timeout, on the server's clock; 0: no bound
	upload  *upload            // what goes on sending the body; nil when there is no more to send

	connectBy time.Time // when all tries to get a connection end; zero: none has begun since there was one

	body  int  // where in work.in the request's body begins
	whole bool // that body is there to its end
	end   int  // where it ends then

	waited   bool // it stood in line, so that start is a while ago
	parts    bool // the request came in several
	streamed bool // the body went, or goes, by an upload: it is not there any more
	early    bool // the final response began before the body had been sent

	begun    bool // a byte of an answer is on its way to the caller, if only of an interim one
	last     bool // the caller's connection is closed behind it
	answered bool // a final head is on its way to the caller
	status   int  // of that
	upstream bool // it is the upstream's
	fault    *fault.Fault
	named    bool // it has an id: only faults and records do

	sent, received int64     // bytes of the bodies
	over           time.Time // when the upstream's part was over; zero: it had none, or failed in it
}

// begin deals with a request whose head is the next n bytes of what was read: it is answered when begin returns, unless
// x.apart says that this takes reading from the caller.
func (x *session) begin(ctx context.Context, n int) {
	w := x.work
	e := &w.exchange
	// Behind an upgrade that did not come about, the caller's bytes may be of the other protocol.
	e.start, e.body, e.last = x.server.time(), w.r+n, e.last || w.req.Close || w.req.Upgrade != nil
	e.parts, w.pending = w.pending, false
	x.refresh()
	if x.probe {
		x.answerProbe()
		return
	}
	r := &w.req
	switch r.Framing {
	case http1.NoBody:
		e.whole, e.end = true, e.body
	case http1.Length:
		if int64(w.w-e.body) >= r.ContentLength {
			e.whole, e.end = true, e.body+int(r.ContentLength)
		}
	}
	e.counts = x.policy.Unrouted
	f := x.choose()
	x.routed(f)
	patience := decideFor
	if e.route != nil {
		patience = e.route.Upstream.Timeout().Request
	}
	if !x.take(x.server.now(e.start) + int64(patience)) {
		return
	}
	e.counts.Begin()
	if f == nil {
		f = x.admit(ctx)
	}
	switch {
	case f != nil:
		x.fail(f)
	case r.MaxForwards == 0:
		x.answerHere()
	case !e.whole, r.Upgrade != nil:
		x.apart = true
		return
	default:
		x.forward(ctx)
	}
	x.finish()
}

// decideFor bounds an exchange that has no route, and so no timeout of its own.
const decideFor = 10 * time.Second

// take makes the request that was read the session's own, to be answered until deadline. False: it was cancelled before.
func (x *session) take(deadline int64) bool {
	if x.begun(phaseRequest, deadline) {
		return true
	}
	switch why := x.reason(); {
	case why.harmless():
		x.revive(phaseRequest, deadline)
		x.work.exchange.last = true
		return true
	case why == cancelHead, why == cancelShed:
		x.refuseHead(why.fault())
	}
	x.closing = true
	return false
}

// exchange carries what begin left.
func (x *session) exchange(ctx context.Context) {
	var f *fault.Fault
	if x.collectable() {
		f = x.collect()
	}
	if f == nil {
		x.forward(ctx)
	} else {
		x.fail(f)
	}
	x.finish()
}

// refresh takes the snapshot that this exchange keeps to its end.
func (x *session) refresh() {
	if snap := x.server.o.Store.Current(); snap != x.snap {
		if policy := snap.Listener(x.name); policy != nil {
			x.snap, x.policy, x.allowed = snap, policy, nil
			x.identify()
			return
		}
		// The listener left the configuration: what the caller was promised holds for this once.
		x.work.exchange.last = true
	}
}

// leaving reports whether the connection has no future: the service stops, or the listener left the configuration.
func (x *session) leaving() bool {
	if x.server.draining.Load() {
		return x.server.surplus.Load() > 0 && x.server.surplus.Add(-1) >= 0
	}
	now := x.server.o.Store.Current()
	return now != x.snap && now.Listener(x.name) == nil
}

// choose finds the route, or says why there is none for this request.
func (x *session) choose() *fault.Fault {
	e, r := &x.work.exchange, &x.work.req
	if f := x.guard(x.snap, x.policy, r); f != nil {
		return f
	}
	rule, verdict := x.snap.Table.Match(x.name, r.Host, pathOf(r), r.Method)
	switch verdict {
	case route.Found:
	case route.MethodNotAllowed:
		return fault.New(fault.MethodNotAllowed, nil)
	case route.Ambiguous:
		return fault.New(fault.AmbiguousPath, nil)
	default:
		return fault.New(fault.NoRoute, nil)
	}
	e.route = x.snap.Routes[rule]
	e.counts = x.policy.Exchanges[rule]
	if r.OddHost && e.route.OwnHost {
		return fault.New(fault.BadRequest, nil).
			WithDetail("The Host field is no host name, and the upstream's host = \"preserve\" would pass it on.")
	}
	if r.Framing == http1.Length && r.ContentLength > e.route.MaxBody {
		return tooLarge(e.route.MaxBody)
	}
	return nil
}

// pathOf is the path that routes are found by.
func pathOf(r *http1.Request) []byte {
	if r.Form == http1.AsteriskForm {
		return []byte("/")
	}
	return r.Path
}

func tooLarge(most int64) *fault.Fault {
	return fault.New(fault.RequestTooLarge, nil).
		WithDetail(fmt.Sprintf("The request's body is larger than the %d bytes that are allowed here.", most))
}

// admit asks the limits.
func (x *session) admit(ctx context.Context) *fault.Fault {
	e, l := &x.work.exchange, &x.snap.Limits
	for _, r := range [...]*snapshot.Rate{l.Rate, e.route.Rate} {
		if f := x.rate(r); f != nil {
			return f
		}
	}
	if f := x.consult(); f != nil {
		return f
	}
	e.inside = l.Requests.TryEnter()
	if !e.inside {
		e.inside = x.queue(ctx, func(gone <-chan struct{}) bool { return l.Requests.Enter(l.QueueTimeout, gone) })
	}
	if !e.inside {
		return x.full("limits.max_concurrent_requests")
	}
	return x.enter(ctx)
}

// consult asks the upstream's circuit breaker.
func (x *session) consult() *fault.Fault {
	e := &x.work.exchange
	ticket, wait, ok := e.route.Upstream.Breaker().Admit(e.start)
	if !ok {
		f := fault.New(fault.CircuitBreakerOpen, nil)
		f.RetryAfter = e.route.Upstream.RetryAfter(wait)
		return f
	}
	e.ticket = ticket
	return nil
}

// enter chooses an endpoint, and takes a place among its connections.
func (x *session) enter(ctx context.Context) (f *fault.Fault) {
	e, u := &x.work.exchange, x.work.exchange.route.Upstream
	if u.Len() > 0 {
		e.try, f = u.Pick(ctx, e.start, &e.tried)
	} else { // that may take a while
		x.abandonable(ctx, func(ctx context.Context) { e.try, f = u.Pick(ctx, e.start, &e.tried) })
	}
	if f != nil {
		return f
	}
	if gate := e.try.Endpoint.Gate(); gate != nil {
		e.pooled = gate.TryEnter()
		if !e.pooled {
			x.enterOther(ctx)
		}
		if !e.pooled {
			gate = e.try.Endpoint.Gate()
			e.pooled = x.queue(ctx, func(gone <-chan struct{}) bool { return gate.Enter(x.snap.Limits.QueueTimeout, gone) })
		}
		if !e.pooled {
			return x.full("upstream." + u.Name() + ".pool.max_active")
		}
	}
	return nil
}

// enterOther takes another endpoint than the chosen one, which is full, if one has a place at once.
func (x *session) enterOther(ctx context.Context) {
	e, u := &x.work.exchange, x.work.exchange.route.Upstream
	for !e.pooled && e.tried.Len() < u.Len() && u.Other(e.start, &e.tried) {
		t, f := u.Pick(ctx, e.start, &e.tried)
		if f != nil {
			return
		}
		if e.pooled = t.Endpoint.Gate().TryEnter(); e.pooled {
			e.try, t = t, e.try
		}
		t.End(e.start, upstream.Abandoned)
	}
}

// leaveEndpoint gives back what enter took.
func (x *session) leaveEndpoint(now time.Time, o upstream.Outcome) {
	e := &x.work.exchange
	if e.pooled {
		e.pooled = false
		e.try.Endpoint.Gate().Leave()
	}
	e.try.End(now, o)
	e.try = upstream.Try{}
}

// rate asks one rate limit; nil is none.
func (x *session) rate(r *snapshot.Rate) *fault.Fault {
	if r == nil {
		return nil
	}
	key, f := x.rateKey(r)
	if f != nil {
		return f
	}
	wait, ok := r.Admit(x.work.exchange.start, key)
	if ok {
		return nil
	}
	x.server.o.Metrics.RateLimited(r.Key)
	f = fault.New(fault.RateLimited, nil)
	f.RetryAfter = wait
	f.Detail = fmt.Sprintf("The rate limit with the key %q is used up; it is set by %s.", r.Key, r.Setting)
	if r.ByDefault {
		f.Detail = fmt.Sprintf("The rate limit with the key %q is used up; it is the default, which %s changes.", r.Key, r.Setting)
	}
	f.Fix = fmt.Sprintf("Wait as long as Retry-After says, or raise %s.requests_per_second and %[1]s.burst.", r.Setting)
	return f
}

// rateKey is what tells this caller from others, for r.
func (x *session) rateKey(r *snapshot.Rate) (key []byte, f *fault.Fault) {
	switch r.By {
	case snapshot.RateIP:
		if x.address != "" {
			key = x.share
		}
	case snapshot.RateUser:
		key = x.party.User
	case snapshot.RateUnit:
		key = x.party.Unit
	case snapshot.RateHeader:
		return x.headerKey(r)
	case snapshot.RateAll:
	}
	return key, nil
}

// headerKey is the value of the field that tells callers apart. Which of two an upstream goes by is not known, so there may be one only.
func (x *session) headerKey(r *snapshot.Rate) (key []byte, f *fault.Fault) {
	found := false
	for i := range x.work.req.Fields {
		field := &x.work.req.Fields[i]
		if !http1.Alike(field.Name, r.FoldedHeader) {
			continue
		}
		if found {
			return nil, fault.New(fault.BadRequest, nil).WithDetail(fmt.Sprintf(
				"The field %s is there more than once, and %s tells callers apart by it.", r.Header, r.Setting))
		}
		key, found = field.Value, true
	}
	return key, nil
}

// queue waits in line for as long as the exchange is wanted.
func (x *session) queue(ctx context.Context, enter func(gone <-chan struct{}) bool) (ok bool) {
	x.work.exchange.waited = true
	x.abandonable(ctx, func(ctx context.Context) { ok = enter(ctx.Done()) })
	return ok
}

func (x *session) full(limit string) *fault.Fault {
	if why := x.reason(); why.cancelled() {
		return why.fault()
	}
	f := fault.New(fault.ConcurrencyLimit, nil)
	f.RetryAfter = time.Second
	f.Detail = fmt.Sprintf("As many requests as %s allows are in progress, and no place was to be had within limits.queue_timeout.", limit)
	f.Fix = "Send fewer requests at once, or raise " + limit + " or limits.queue_timeout."
	return f
}

// abandonable runs wait with a context that ends, for a reason that is a fault, when the exchange is cancelled.
func (x *session) abandonable(ctx context.Context, wait func(context.Context)) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	give := func(err error) { cancel(err) }
	x.giveUp.Store(&give)
	if why := x.reason(); why.cancelled() {
		cancel(why.fault()) // before anybody could know of give
	}
	wait(ctx)
	x.giveUp.Store(nil)
}

// leaveGate gives the place among the requests back: streams and tunnels do not count.
func (x *session) leaveGate() {
	if e := &x.work.exchange; e.inside {
		e.inside = false
		x.snap.Limits.Requests.Leave()
	}
}

// finish counts and records an exchange that is over, and makes the session ready for another.
func (x *session) finish() {
	w := x.work
	e := &w.exchange
	x.leaveGate()
	now := e.over
	if now.IsZero() {
		now = x.server.time()
	}
	outcome := e.outcome()
	x.leaveEndpoint(now, outcome)
	if e.route != nil {
		e.route.Upstream.Done(now, e.ticket, outcome)
	}
	d := now.Sub(e.start)
	x.turn.Add(1)
	e.counts.End(e.status, e.upstream, d)
	if e.sent|e.received != 0 {
		e.counts.Bytes(e.sent, e.received)
	}
	if e.fault != nil {
		e.counts.Fault(string(e.fault.Token))
	}
	if x.snap.Policy.Wants(e.status, e.fault != nil, d) {
		x.record(now, d)
	}
	if e.last && (w.w > e.end || w.req.Upgrade != nil) {
		x.unread = !x.closing
	}
	x.closing = x.closing || e.last
	if !x.closing {
		// What the caller sent behind this request is the next one.
		if w.r = e.end; w.r >= w.w {
			w.r, w.w = 0, 0
		}
	}
	*e = exchange{}
	x.rest()
}

// record tells the log. The names of things that we and the operator chose come first, then what others wrote.
func (x *session) record(now time.Time, d time.Duration) {
	w := x.work
	e, r := &w.exchange, &w.req
	if x.party.text == "" {
		x.party.text, x.party.unit = x.caller(), string(x.party.Unit)
	}
	rec := logging.ExchangeRecord{
		Policy: &x.snap.Policy, Time: now, Duration: d, Generation: x.snap.Generation, Listener: x.name,
		RequestID: x.requestID(), Status: e.status, Caller: x.party.text, Unit: x.party.unit,
		Method: r.Method, Host: r.Host, Path: r.Path, BytesIn: e.sent, BytesOut: e.received,
		Retries: e.retries,
	}
	if e.route != nil {
		rec.Route, rec.Upstream = e.route.Name, e.route.Upstream.Name()
	}
	if f := e.fault; f != nil {
		rec.Fault, rec.Blame, rec.Err = string(f.Token), f.Token.Blame().String(), f.Err
		rec.Summary, rec.Fix = f.Token.Summary(), f.ToDo()
		if f.Detail != "" {
			rec.Summary = f.Detail
		}
	}
	x.server.o.Log.Exchange(&rec)
}

// requestID is a view of the session's work.
func (x *session) requestID() []byte {
	w := x.work
	if !w.exchange.named {
		w.exchange.named = true
		x.server.ids.next(&w.id)
	}
	return w.id[:]
}

// allow is the value of Allow for a path whose routes have no such method.
func (x *session) allow() string {
	r := &x.work.req
	return strings.Join(x.snap.Table.Allowed(x.name, r.Host, pathOf(r)), ", ")
}

// seconds is d as Retry-After has it: whole, never less than d.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
