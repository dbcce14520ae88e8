package upstream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/balance"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// How endpoints are tried that get no exchanges.
const (
	minTrialPause   = 250 * time.Millisecond // from the beginning of one trial to that of the next
	trialPauseShare = 100                    // the pause grows to the time since the first trial, divided by this
	maxTrialTime    = time.Second            // of one trial
	maxTrials       = 8                      // at a time
)

// recovery finds out when connections come about again: to endpoints that are ejected, and to all of them while the
// circuit breaker refuses exchanges. It makes connections of its own. If the first one comes about, connections are not the
// trouble, and ejection and circuit breaker last as long as they are to. If one comes about after another that did not,
// they end at once.
type recovery struct {
	try    func(*Endpoint, context.Context) error
	places chan struct{} // bounds how many trials there are at a time
	missed atomic.Int32  // endpoints whose last trial failed, and is repeated

	mu    sync.Mutex       // guards what follows
	under map[*member]bool // endpoints with a goroutine of their own; nil stands for those that no lookup has found yet
}

func newRecovery() recovery { return recovery{try: (*Endpoint).trial} }

// begin reports whether m has no goroutine yet, and is to get one.
func (r *recovery) begin(m *member) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under[m] {
		return false
	}
	if r.under == nil {
		r.under, r.places = make(map[*member]bool), make(chan struct{}, maxTrials)
	}
	r.under[m] = true
	return true
}

// goesOn reports whether m is still out. If not, another begin is possible from now on; no change goes unnoticed in between.
func (r *recovery) goesOn(m *member, out func() bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if out() {
		return true
	}
	delete(r.under, m)
	return false
}

// recoverEndpoints begins trials of all endpoints that are out and have none yet. group waits for them.
func (u *Upstream) recoverEndpoints(ctx context.Context, group *sync.WaitGroup) {
	now := time.Now()
	begin := func(m *member) {
		if u.out(m, now) && u.recovery.begin(m) {
			group.Go(func() { u.recoverEndpoint(ctx, m) })
		}
	}
	begin(nil)
	for _, m := range u.set.Endpoints() {
		begin(m)
	}
}

// RetryAfter is when it makes sense to ask again for an exchange that the circuit breaker refused for so long: sooner where
// trials find out by themselves when the upstream is back.
func (u *Upstream) RetryAfter(refused time.Duration) time.Duration {
	if u.recovery.missed.Load() > 0 {
		return min(refused, time.Second)
	}
	return refused
}

// out reports whether trials of m make sense.
func (u *Upstream) out(m *member, now time.Time) bool {
	refuses := u.breaker.Refuses(now)
	if m == nil {
		return refuses && u.resolver != nil && u.Len() == 0
	}
	switch m.Status(now).State {
	case balance.Drained:
		return false
	case balance.Ejected:
		refuses = true
	case balance.In, balance.Unhealthy:
	}
	return refuses && !m.Data.left()
}

// recoverEndpoint tries m until it is not out any more, or turns out to have been reachable all the time.
func (u *Upstream) recoverEndpoint(ctx context.Context, m *member) {
	begun, missed := time.Now(), false
	miss := func(now bool) {
		switch {
		case now && !missed:
			u.recovery.missed.Add(1)
		case !now && missed:
			u.recovery.missed.Add(-1)
		}
		missed = now
	}
	defer miss(false)
	// What was not there yet when the circuit breaker opened, was not reachable.
	miss(m == nil || u.breaker.Refuses(begun) && m.Data.joined.After(u.breaker.Last().At))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		if !u.recovery.goesOn(m, func() bool { return u.out(m, start) }) {
			return
		}
		err := u.tryOnce(ctx, m)
		switch {
		case err != nil:
			miss(true)
		case missed:
			now := time.Now()
			in, closed := m.Recover(now), u.breaker.Recover(start, now)
			miss(!in && !closed)
		default:
			u.recovery.goesOn(m, func() bool { return false })
			return
		}
		timer.Reset(time.Until(start.Add(max(minTrialPause, start.Sub(begun)/trialPauseShare))))
	}
}

// tryOnce makes a connection to m. For endpoints that are not known yet, and after a failure, it has names looked up.
func (u *Upstream) tryOnce(ctx context.Context, m *member) error {
	err := errNoAddress
	if m != nil {
		select {
		case u.recovery.places <- struct{}{}:
			err = u.recovery.try(m.Data, ctx)
			<-u.recovery.places
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil && u.resolver != nil {
		u.resolver.Refresh()
	}
	return err
}

// trial makes a connection, and keeps it for exchanges. Failures are not counted: they are those that exchanges had.
func (e *Endpoint) trial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxTrialTime)
	defer cancel()
	c, err := e.Dial(ctx)
	if err != nil {
		return err
	}
	if e.o.Pool.MaxIdle > 0 {
		c.Keep(time.Now(), -1)
	} else {
		c.Close(metrics.ClosedFull)
	}
	return nil
}

// left reports whether e is not one of the upstream's endpoints any more.
func (e *Endpoint) left() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.retired
}
