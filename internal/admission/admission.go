// Package admission decides whether an exchange or a connection may proceed now, must wait its turn, or is refused.
package admission

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Bucket is a token bucket: it admits perSecond on average and up to burst at
// once. All methods may be called concurrently; none allocates in the steady state.
type Bucket struct {
	limiter atomic.Pointer[rate.Limiter] // nil: everything is admitted
}

// NewBucket returns a full bucket. With a perSecond of 0 or less it admits
// everything; a burst of less than 1, which would admit nothing, counts as 1.
func NewBucket(perSecond float64, burst int) *Bucket {
	b := new(Bucket)
	b.Reconfigure(perSecond, burst)
	return b
}

// Admit takes a token at now. When there is none it takes nothing and returns the
// time after which one will be there, provided that nobody else comes for it.
func (b *Bucket) Admit(now time.Time) (retryAfter time.Duration, ok bool) {
	l := b.limiter.Load()
	if l == nil {
		return 0, true
	}
	if l.AllowN(now, 1) {
		return 0, true
	}
	missing := 1 - l.TokensAt(now)
	wait := math.Ceil(missing / float64(l.Limit()) * float64(time.Second))
	return time.Duration(min(max(wait, 1), math.MaxInt32*float64(time.Second))), false
}

// Level returns how many of the burst's tokens are taken at the moment, and the
// burst. Both are 0 when the bucket admits everything.
func (b *Bucket) Level() (used, limit float64) {
	l := b.limiter.Load()
	if l == nil {
		return 0, 0
	}
	limit = float64(l.Burst())
	return min(max(limit-l.Tokens(), 0), limit), limit
}

// Reconfigure changes rate and burst and keeps the tokens there are, as far as
// the new burst holds them, so that a reload hands nobody a second burst. A
// bucket that admitted everything until now starts full.
func (b *Bucket) Reconfigure(perSecond float64, burst int) {
	burst = max(burst, 1)
	switch l := b.limiter.Load(); {
	case perSecond <= 0:
		b.limiter.Store(nil)
	case l == nil:
		b.limiter.Store(rate.NewLimiter(rate.Limit(perSecond), burst))
	default:
		now := time.Now()
		l.SetLimitAt(now, rate.Limit(perSecond))
		l.SetBurstAt(now, burst)
	}
}
