package upstream

import (
	"context"
	"fmt"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/balance"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// Outcome is what a Try says about its Endpoint.
type Outcome = balance.Outcome

// The outcomes. Abandoned is the zero Outcome.
const (
	Abandoned = balance.Abandoned // nothing: the caller went away, or we did not get as far
	Success   = balance.Success
	Failure   = balance.Failure // to connect, or an answer that only a server in trouble gives
)

// OutcomeOfStatus is what an answer with that status says about the Endpoint. 502, 503 and 504 are what gateways and
// overloaded servers give; 500 is more often about one request than about the server.
func OutcomeOfStatus(status int) Outcome {
	switch status {
	case 502, 503, 504:
		return Failure
	default:
		return Success
	}
}

// OutcomeOf is what the end of a try in f, or in none, says about the Endpoint.
func OutcomeOf(f *fault.Fault) Outcome {
	switch {
	case f == nil:
		return Success
	case f.Token.Blame() == fault.Upstream:
		return Failure
	default:
		return Abandoned
	}
}

// Try is one exchange's use of an Endpoint. The zero Try has none, and may end.
type Try struct {
	Endpoint *Endpoint
	Forced   bool // no endpoint was in, and this is one of those that are out
	t        balance.Try[*Endpoint]
}

// End says how it went. It is called once for each Try.
func (t Try) End(now time.Time, o Outcome) { t.t.End(now, o) }

// Tried is the endpoints that an exchange has used. The zero value is none. It remembers the last few.
type Tried struct {
	n    int
	last [8]*member
}

func (t *Tried) members() []*member { return t.last[:min(t.n, len(t.last))] }

func (t *Tried) add(m *member) {
	t.last[t.n%len(t.last)] = m
	t.n++
}

// Len counts the choices that were made, those of the same endpoint included.
func (t *Tried) Len() int { return t.n }

// Pick chooses an endpoint for an exchange, one that is not in tried if there is another, and adds it to tried. As long as
// no address is known, it waits for the first answer of DNS: no longer than Timeout.Connect, and not after ctx is done,
// whose cause it returns then. The caller calls End on the Try.
func (u *Upstream) Pick(ctx context.Context, now time.Time, tried *Tried) (Try, *fault.Fault) {
	m, forced := u.set.Pick(now, tried.members())
	if m == nil {
		if f := u.await(ctx); f != nil {
			return Try{}, f
		}
		if m, forced = u.set.Pick(now, tried.members()); m == nil {
			return Try{}, u.unresolved()
		}
	}
	tried.add(m)
	return Try{m.Data, forced, m.Begin()}, nil
}

// Other reports whether Pick would choose an endpoint that is in and is not in tried.
func (u *Upstream) Other(now time.Time, tried *Tried) bool { return u.set.Other(now, tried.members()) }

// await waits for the first answer of DNS.
func (u *Upstream) await(ctx context.Context) *fault.Fault {
	if u.resolver == nil {
		return nil // its endpoints do not come from there
	}
	select {
	case <-u.resolver.First():
		return nil
	default:
	}
	limit := u.o.Timeout.Connect
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-u.resolver.First():
		return nil
	case <-ctx.Done():
		return fault.Classify(fault.PhaseResolve, context.Cause(ctx))
	case <-u.over:
		return fault.New(fault.DNSError, errNoAddress)
	case <-late:
		return fault.New(fault.DNSTimeout, fmt.Errorf("look up %s: no answer within %v", u.o.URL, limit))
	}
}

// unresolved says why there is no endpoint.
func (u *Upstream) unresolved() *fault.Fault {
	err := u.invalid
	if u.resolver != nil {
		u.resolver.Refresh()
		err = u.resolver.Current().Err
	}
	if err == nil {
		err = errNoAddress
	}
	f := fault.Classify(fault.PhaseResolve, err)
	if f.Token == fault.DNSError && u.o.network() != "ip" {
		f = f.WithDetail("No address of the upstream is known that the upstream's bind can reach: it takes one of the same family, IPv4 or IPv6.")
	}
	return f
}
