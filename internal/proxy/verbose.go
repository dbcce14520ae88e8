package proxy

import (
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
)

// log is where records for developers go. Nothing is made up for a record unless its level is asked for first: debug for
// what happens to connections and tries, trace for what happens in each request.
func (x *session) log() *logging.Log { return x.server.o.Log }

// callerConnected records a new connection of a caller.
func (x *session) callerConnected() {
	if x.log().Debugging() && !x.probe {
		x.log().Logger().Debug("caller connected", "listener", x.name, "caller", x.caller())
	}
}

// callerLeft records the end of one.
func (x *session) callerLeft(why string) {
	if x.log().Debugging() && !x.probe {
		x.log().Logger().Debug("connection of caller ended", "listener", x.name, "caller", x.caller(), "why", why)
	}
}

// whyOver is why a session ends that is not kept for the next process.
func (x *session) whyOver() string {
	switch why := x.reason(); {
	case why == cancelIdle:
		return "limits.idle_timeout"
	case why == cancelDrain:
		return "the service stops, or the listener left"
	case why == cancelEvict:
		return "another caller needed its place"
	case why == cancelLinger:
		return "the caller did not close after the last answer"
	case why.cancelled():
		return string(why.fault().Token)
	case x.broken:
		return "the answer was cut off"
	case x.closing:
		return "the last answer was sent"
	}
	return "the caller closed"
}

// routed records what a request was taken for. Its path may hold an account number, and is left out.
func (x *session) routed(f *fault.Fault) {
	if !x.log().Tracing() {
		return
	}
	e := &x.work.exchange
	var routeName, upstreamName, token string
	if e.route != nil {
		routeName, upstreamName = e.route.Name, e.route.Upstream.Name()
	}
	if f != nil {
		token = string(f.Token)
	}
	x.log().Logger().Trace("request routed", "request_id", string(x.requestID()), "listener", x.name, "route", routeName,
		"upstream", upstreamName, "fault", token)
}

// connectionChosen records which connection a try uses.
func (x *session) connectionChosen() {
	if !x.log().Tracing() {
		return
	}
	e := &x.work.exchange
	x.log().Logger().Trace("connection chosen", "request_id", string(x.requestID()), "upstream", e.route.Upstream.Name(),
		"endpoint", e.conn.Endpoint().Address(), "try", e.retries+1, "kept", e.conn.Reused())
}

// tryFailed records a try after which another may follow. f is nil where the answer itself is the reason.
func (x *session) tryFailed(f *fault.Fault, again bool) {
	if !x.log().Debugging() {
		return
	}
	e := &x.work.exchange
	args := []any{"request_id", string(x.requestID()), "upstream", e.route.Upstream.Name(), "endpoint", e.try.Endpoint.Address(),
		"try", e.retries + 1, "again", again}
	if f == nil {
		args = append(args, "status", x.work.resp.Status)
	} else {
		args = append(args, "fault", string(f.Token), "err", f.Err)
	}
	x.log().Logger().Debug("try failed", args...)
}
