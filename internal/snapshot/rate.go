package snapshot

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
	"github.com/mtls-proxy/mtls-proxy/internal/caller"
	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

// RateKey is what tells the callers of a rate limit apart.
type RateKey uint8

// The keys.
const (
	RateAll    RateKey = iota // nothing: there is one budget for all
	RateUser                  // the caller's user; those who are not known have one budget
	RateUnit                  // the caller's unit, likewise
	RateIP                    // the caller's address
	RateHeader                // the value of a field
)

// Rate is a rate limit. All methods may be called concurrently, also on a nil Rate, which admits everything.
type Rate struct {
	Setting   string  // where it is configured, "rate_limit" or "route[2].rate_limit"
	Key       string  // as the configuration has it: "all", "user", "header:X-Key"
	By        RateKey // what Admit wants to be given
	Header    string  // the field's name, with RateHeader
	ByDefault bool    // nobody configured it

	FoldedHeader string // Header, for http1.Alike

	budget    *budget
	perSecond float64
	burst     int
}

// Admit takes a token of the budget that key has; with RateAll, key does not matter. When there is none it takes nothing
// and returns a time after which to try again. It does not keep key. With a shared budget it may wait for the store, no
// longer than that takes to count as away. now spares the one budget for all a look at the clock; those by key look for
// themselves, behind their locks.
func (r *Rate) Admit(now time.Time, key []byte) (retryAfter time.Duration, ok bool) {
	if r == nil {
		return 0, true
	}
	b := r.budget
	switch {
	case b.shared != nil:
		if r.By == RateAll {
			key = nil
		}
		retryAfter, ok, _ = b.shared.Admit(key)
		return retryAfter, ok
	case b.keys != nil:
		return b.keys.Admit(key)
	default:
		return b.bucket.Admit(now)
	}
}

// Level returns how much of the burst is taken at the moment, and the burst. Both are 0 where there is a budget for each
// of several keys, or none.
func (r *Rate) Level() (used, limit float64) {
	if r == nil || r.budget.bucket == nil {
		return 0, 0
	}
	return r.budget.bucket.Level()
}

// Keys returns how many callers are told apart at the moment, and how many can be; 0 without a bound of its own.
func (r *Rate) Keys() (used, limit float64) {
	switch {
	case r == nil:
		return 0, 0
	case r.budget.keys != nil:
		return r.budget.keys.Level()
	case r.budget.shared != nil:
		return float64(r.budget.shared.Stats().Keys), admission.DefaultKeys
	default:
		return 0, 0
	}
}

// Shared returns how the shared budget fares, and false when it is not shared.
func (r *Rate) Shared() (stats admission.SharedStats, ok bool) {
	if r == nil || r.budget.shared == nil {
		return stats, false
	}
	return r.budget.shared.Stats(), true
}

// apply brings the budget to what this generation wants. Levels stay.
func (r *Rate) apply() {
	switch b := r.budget; {
	case b.shared != nil:
		b.shared.Reconfigure(r.perSecond, r.burst)
	case b.keys != nil:
		b.keys.Reconfigure(r.perSecond, r.burst)
	default:
		b.bucket.Reconfigure(r.perSecond, r.burst)
	}
}

// budget is what outlives a generation, as long as its identity stays: one of the three.
type budget struct {
	id     budgetID
	bucket *admission.Bucket
	keys   *admission.Keys
	shared *admission.Shared

	changes chan error    // of shared: why the store is away, nil when it is back
	over    chan struct{} // closed when shared is
	end     sync.Once
}

// budgetID is what makes a budget another one, so that its levels mean nothing.
type budgetID struct {
	of, key         string // of: the route; "" for all
	store, password string
	failure         admission.Failure
}

// maxChanges is how many changes of a store wait to be told.
const maxChanges = 16

func newBudget(id budgetID, by RateKey, perSecond float64, burst int) *budget {
	b := &budget{id: id}
	if by == RateAll {
		b.bucket = admission.NewBucket(perSecond, burst)
	} else {
		b.keys = admission.NewKeys(perSecond, burst, 0)
	}
	return b
}

// changed keeps a change for whoever tells it. It does not wait.
func (b *budget) changed(err error) {
	select {
	case b.changes <- err:
	default:
	}
}

// close ends what is shared.
func (b *budget) close() {
	if b.shared != nil {
		b.end.Do(func() { close(b.over) })
		b.shared.Close()
	}
}

// prefixOf is what the names of a shared budget's keys begin with. Members of a fleet that tell callers apart in different
// ways do not take from each other.
func prefixOf(key string) string { return "mtls-proxy:rate:" + strings.ToLower(key) + ":" }

// rates makes the rate limits. It is the last step that can fail, for a shared budget has to be closed.
func (b *builder) rates(ctx context.Context) error {
	for i, r := range b.next.Routes {
		if c := b.cfg.Route[i].RateLimit; c != nil {
			// Places change when a route is written before this one. Levels follow the name.
			r.Rate = b.local(fmt.Sprintf("route[%d].rate_limit", i+1), "route "+r.Name, c)
		}
	}
	c := &b.cfg.RateLimit
	if c.Shared == "" || c.RequestsPerSecond <= 0 {
		b.rate = b.local("rate_limit", "", &c.RateLimit)
	} else {
		r, err := b.fleet(ctx, c)
		if err != nil {
			return err
		}
		b.rate = r
	}
	b.callers = b.rate.asks()
	for _, r := range b.next.Routes {
		b.callers |= r.Rate.asks()
	}
	b.rate.ByDefault = b.cfg.Origin("rate_limit.requests_per_second").IsDefault() && b.cfg.Origin("rate_limit.burst").IsDefault()
	return nil
}

// asks returns what the limit has to know about callers.
func (r *Rate) asks() caller.Facts {
	switch {
	case r == nil || r.perSecond <= 0:
		return 0
	case r.By == RateUser:
		return caller.User
	case r.By == RateUnit:
		return caller.Unit
	}
	return 0
}

func rateOf(setting string, c *config.RateLimit) *Rate {
	r := &Rate{Setting: setting, Key: c.Key, Header: c.Header(), FoldedHeader: http1.Folded(c.Header()), perSecond: c.RequestsPerSecond, burst: c.Burst}
	switch {
	case r.Header != "":
		r.By = RateHeader
	case c.Key == config.RateKeyIP:
		r.By = RateIP
	case c.Key == config.RateKeyUser:
		r.By = RateUser
	case c.Key == config.RateKeyUnit:
		r.By = RateUnit
	}
	return r
}

// local makes a limit whose budgets are our own.
func (b *builder) local(setting, of string, c *config.RateLimit) *Rate {
	r := rateOf(setting, c)
	id := budgetID{of: of, key: strings.ToLower(c.Key)}
	if r.budget = b.before.budgets[id]; r.budget == nil {
		r.budget = newBudget(id, r.By, c.RequestsPerSecond, c.Burst)
	}
	b.next.budgets = append(b.next.budgets, r.budget)
	return r
}

// fleet makes a limit whose budgets are shared.
func (b *builder) fleet(ctx context.Context, c *config.GlobalRateLimit) (*Rate, error) {
	r := rateOf("rate_limit", &c.RateLimit)
	id := budgetID{key: strings.ToLower(c.Key), store: c.Shared, password: b.password}
	switch c.SharedFailure {
	case config.SharedFailureAllow:
		id.failure = admission.Allow
	case config.SharedFailureDeny:
		id.failure = admission.Deny
	case config.SharedFailureLocal:
		id.failure = admission.Local
	}
	if r.budget = b.before.budgets[id]; r.budget == nil {
		s := &budget{id: id, changes: make(chan error, maxChanges), over: make(chan struct{})}
		var err error
		if s.shared, err = admission.NewShared(ctx, admission.SharedOptions{
			URL: c.Shared, Password: b.password, Prefix: prefixOf(c.Key), PerSecond: c.RequestsPerSecond, Burst: c.Burst,
			Failure: id.failure, Changed: s.changed,
		}); err != nil {
			return nil, fmt.Errorf("rate_limit.shared: %w", err)
		}
		r.budget = s
	}
	b.next.budgets = append(b.next.budgets, r.budget)
	return r, nil
}
