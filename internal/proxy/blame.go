package proxy

import (
	"errors"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// This file decides whose fault an end was. What a caller can bring about at will is no failure of the upstream: all callers share
// its circuit breaker and its ejections.

// silentFor is for how long a caller has to be silent in the middle of a body before the upstream's end is said to be its fault.
const silentFor = 100 * time.Millisecond

// attribute returns the fault of an exchange that ended in f while its upload was not complete. silent is for how long the upload had
// been waiting for the caller then; 0: it was not.
func attribute(f *fault.Fault, silent time.Duration) *fault.Fault {
	if f == nil || f.Token.Blame() != fault.Upstream || silent == 0 {
		return f
	}
	switch f.Token {
	case fault.ResponseMalformed, fault.ResponseHeaderTooLarge, fault.UpgradeFailed:
		return f // whatever the caller does, it does not do this
	case fault.RequestTimeout:
		return fault.New(fault.RequestBodyTimeout, f.Err).
			WithDetail("The request's body had not arrived when the time for the exchange, timeout.request, was over.").
			WithFix("Send the body faster, or raise the upstream's timeout.request.")
	case fault.ResponseBodyTimeout:
		return fault.New(fault.RequestBodyTimeout, f.Err)
	}
	if silent < silentFor {
		return f
	}
	return fault.New(fault.RequestBodyTimeout, errors.Join(errHungUp, f.Err)).
		WithDetail("The upstream ended the connection while it waited for the rest of the request's body.").
		WithFix("Send the body without pauses: the upstream waits for it less long than timeout.idle.")
}

var errHungUp = errors.New("the upstream did not wait any longer for the request's body")

// outcome is what the exchange says about the upstream.
func (e *exchange) outcome() upstream.Outcome {
	if e.upstream && e.status == 101 {
		return upstream.Success // how a tunnel ends is between its two ends
	}
	o := upstream.Abandoned
	switch {
	case e.fault != nil:
		o = upstream.OutcomeOf(e.fault)
	case e.upstream:
		o = upstream.OutcomeOfStatus(e.status)
	}
	if o == upstream.Failure && e.upload != nil && e.upload.excuses(e) {
		return upstream.Abandoned
	}
	return o
}

// excuses reports whether the failure of its exchange says nothing about the upstream: either the upstream took all of the body that
// came, but it was not all that was to come, or the body took most of the time that was over. It is called once done is closed.
func (u *upload) excuses(e *exchange) bool {
	if !u.complete() {
		return !u.held
	}
	limit := e.route.Upstream.Timeout().Request
	return e.fault != nil && e.fault.Token == fault.RequestTimeout && u.over.Sub(e.start) > limit/2
}
