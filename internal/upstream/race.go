package upstream

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/balance"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// How long a connection may take before another is begun beside it.
const (
	headStart    = 250 * time.Millisecond  // to an endpoint that is as good: RFC 8305, 5 and 8
	standbyStart = 1500 * time.Millisecond // to one that stands by: longer than it takes to mend a lost packet
)

// Dial makes a new connection for the exchange that has try, as Endpoint.Dial does; but while that does not come about,
// it begins with other endpoints, which it adds to tried, and takes the first that is reached. Where there is a Gate, the
// exchange is in that of try. In the end try is the use of the endpoint that was reached, with a place in its Gate, and
// the others have ended, as failures where they were overtaken. With an error, try is what it was. Errors are
// *fault.Fault.
//
// Nobody else uses try and tried meanwhile. TLS is with the winner alone. Through a proxy, which has several addresses to
// try as well, there is no race.
func (u *Upstream) Dial(ctx context.Context, try *Try, tried *Tried) (*Conn, error) {
	if u.o.Proxy != nil || u.Len() < 2 {
		return try.Endpoint.Dial(ctx)
	}
	r := race{u, tried, (*Endpoint).reach}
	won, nc, err := r.run(ctx, *try)
	*try = won
	if err != nil {
		won.Endpoint.missed(ctx)
		return nil, err
	}
	return won.Endpoint.secure(ctx, nc)
}

// race is one Dial. At any time one goroutine decides, the one that began last, and those before it wait for their
// connections only.
type race struct {
	u     *Upstream
	tried *Tried
	reach func(*Endpoint, context.Context) (net.Conn, error)
}

// run connects to the endpoint of try and, when that takes too long, runs with the next one. It returns the try that got
// a connection, or try with its error. All others have ended, and so has all that it began.
func (r *race) run(ctx context.Context, try Try) (Try, net.Conn, error) {
	mine, overtake := context.WithCancelCause(ctx)
	defer overtake(nil)
	theirs, stop := context.WithCancel(ctx)
	defer stop()
	var (
		rival Try // got a connection
		late  net.Conn
		done  = make(chan struct{})
	)
	timer := time.AfterFunc(headStart, func() {
		defer close(done)
		for theirs.Err() == nil {
			next, ok := r.next(theirs, try.Endpoint)
			if !ok {
				return
			}
			next, nc, err := r.run(theirs, next)
			if err == nil {
				rival, late = next, nc
				overtake(fault.New(fault.ConnectionTimeout, fmt.Errorf("connect to %s: another endpoint answered first", try.Endpoint.id)))
				return
			}
			if theirs.Err() != nil {
				err = context.Canceled // given up, by whomever: it had less time than it was due
			}
			r.lose(ctx, next, err)
		}
	})
	nc, err := r.reach(try.Endpoint, mine)
	if timer.Stop() {
		return try, nc, err
	}
	if err == nil {
		stop()
	}
	<-done
	switch {
	case late == nil:
		return try, nc, err
	case err != nil:
		r.lose(ctx, try, err)
		return rival, late, nil
	default: // both, in the same moment
		_ = late.Close()
		r.lose(ctx, rival, context.Canceled)
		return try, nc, nil
	}
}

// lose ends a try that does not get the exchange. One that we gave up for another's success has not failed.
func (r *race) lose(ctx context.Context, try Try, err error) {
	f := fault.Classify(fault.PhaseConnect, err)
	outcome := OutcomeOf(f)
	if f.Token.Blame() != fault.Caller {
		r.u.o.Metrics.HandshakeError(string(f.Token))
		try.Endpoint.missed(ctx)
	}
	if gate := try.Endpoint.gate; gate != nil {
		gate.Leave()
	}
	try.End(time.Now(), outcome)
}

// next begins a try with an endpoint that the exchange has not tried, if there is one that takes it. For one that stands
// by, it waits some more.
func (r *race) next(ctx context.Context, first *Endpoint) (Try, bool) {
	if r.tried.Len() >= len(r.tried.last) {
		return Try{}, false // it would not be known any more who is in the race
	}
	now := time.Now()
	m, forced := r.u.set.Pick(now, r.tried.members())
	if m == nil || slices.Contains(r.tried.members(), m) || m.Status(now).State == balance.Drained {
		return Try{}, false
	}
	if r.u.standsBy(m.Data, first) {
		timer := time.NewTimer(standbyStart - headStart)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return Try{}, false
		}
	}
	if gate := m.Data.gate; gate != nil && !gate.TryEnter() {
		return Try{}, false
	}
	r.tried.add(m)
	return Try{m.Data, forced, m.Begin()}, true
}

// standsBy reports whether e is there for when first cannot be used: it is of a later tier, or of another server where
// their order decides.
func (u *Upstream) standsBy(e, first *Endpoint) bool {
	if u.o.Balance == First && e.server != first.server {
		return true
	}
	var at, before int
	for spec, m := range u.set.Endpoints() {
		switch m.Data {
		case e:
			at = spec.Tier
		case first:
			before = spec.Tier
		}
	}
	return at > before
}
