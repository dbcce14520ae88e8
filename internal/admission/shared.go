package admission

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// Failure is what is answered while the store is away.
type Failure uint8

const (
	Local Failure = iota // by buckets of our own, with the whole rate and burst
	Allow
	Deny
)

// SharedOptions are the settings of a Shared. They never print their secrets.
type SharedOptions struct {
	URL      string // redis://host:port/db, rediss:// for TLS, or unix:///path?db=n
	Password string // instead of the URL's
	RootCAs  *x509.CertPool
	Prefix   string // of all names in the store; "mtls-proxy:rate:" when empty. Limits with different prefixes have different budgets.

	PerSecond float64 // of each key, for the whole fleet; 0 or less admits everything
	Burst     int
	Failure   Failure
	Most      int           // keys told apart here; DefaultKeys when 0
	Timeout   time.Duration // within which the store must answer; 50 ms when 0

	// Changed, if not nil, is told why the store is away, when it goes, and nil when
	// it is back. It is called by the goroutine that talks to the store, which
	// waits for it, and must not call Close.
	Changed func(err error)
}

func (o SharedOptions) String() string   { return "shared budget at " + printable(o.URL) }
func (o SharedOptions) GoString() string { return o.String() }

const (
	horizon  = 100 * time.Millisecond // for which a slice should last, by the rate at which the last one was used
	sliceAge = time.Second            // a slice that was not used by then goes; its owner has become slow
	hold     = 10 * time.Millisecond  // for which at least a key that got less than it wanted does not ask again
	recheck  = time.Second            // and for which at most: the store may have been restarted, or the rate raised
	grow     = 4                      // how much larger than the last a slice may be
	early    = 8                      // slices of that size and more are renewed before they are used up
)

// Shared is a token bucket for each key that the members of a fleet take from
// together. It is kept in a store, Redis or Valkey; each process takes a slice of
// tokens at a time, sized by how fast it uses them up, so that hardly any exchange
// asks the store. A slice is paid for when it is taken: the fleet never admits more
// than the budget, but some of it may be used as much later as slices last, and in
// any given period up to the slices that were out at its beginning come on top.
//
// While the store is away, the answer is Options.Failure at once. One goroutine
// does all the talking, over one connection, and looks for the store with growing
// pauses; no exchange waits for the store for longer than Timeout. Memory is
// bounded as it is for Keys; in the store, a key expires as soon as its bucket is full.
//
// All methods may be called concurrently.
type Shared struct {
	table   *table[slice]
	budget  atomic.Pointer[budget] // nil: everything is admitted
	local   *Keys                  // for Local
	failure Failure
	prefix  string
	name    string // of the store, without its password
	timeout time.Duration

	// away is set by whoever finds the store wanting and cleared by the goroutine,
	// on any answer. A caller who sets it sends to wake, so that the store is asked again.
	away  atomic.Bool
	wake  chan struct{}
	queue chan *ask

	trouble atomic.Pointer[error]
	next    atomic.Int64 // when the store is looked for again, by table.now
	asked   atomic.Uint64
	trips   atomic.Uint64
	failed  atomic.Uint64
	without atomic.Uint64

	changed func(error)
	cancel  context.CancelFunc
	done    chan struct{} // closed when the goroutine has ended
}

// budget is a rate as the store's script wants it.
type budget struct {
	interval float64 // µs in which a token comes
	burst    int
	most     int // tokens in a slice
}

// slice is what a process has of a key's budget. It belongs to the shard's lock.
type slice struct {
	tokens  int
	granted int   // how many there were
	taken   int64 // when
	refused int64 // until when there are none, as the store said
	again   int64 // when it may be asked again nevertheless
	want    int   // asked for the last time
	unmet   int   // how many waited for the last answer and got nothing of it
	asking  *ask  // the answer that is awaited, if one is
}

// ask is a question to the store.
type ask struct {
	shard, spare int    // spare is less than 0 when it is for a bucket of its key's own
	name         string // whose bucket it is, unless that is a spare one
	key          string // in the store
	want         int
	waiters      int // guarded by the shard's lock
	budget       *budget

	done   chan struct{} // closed when it is answered
	failed bool          // to be read thereafter
}

// NewShared returns a budget at the store that o names. It opens no connection;
// the first Admit does. ctx lends its values and nothing else: only Close ends what
// NewShared starts, and must be called.
func NewShared(ctx context.Context, o SharedOptions) (*Shared, error) {
	at, err := parseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("shared budget: %w", err)
	}
	return newShared(ctx, o, at, at.dial(o.RootCAs)), nil
}

func newShared(ctx context.Context, o SharedOptions, at *address, dial func(context.Context) (net.Conn, error)) *Shared {
	if o.Password != "" {
		at.password = o.Password
	}
	if o.Prefix == "" {
		o.Prefix = "mtls-proxy:rate:"
	}
	if o.Timeout <= 0 {
		o.Timeout = 50 * time.Millisecond
	}
	s := &Shared{
		table:   newTable[slice](o.Most),
		local:   NewKeys(o.PerSecond, o.Burst, o.Most),
		failure: o.Failure,
		prefix:  o.Prefix,
		name:    at.String(),
		timeout: o.Timeout,
		wake:    make(chan struct{}, 1),
		queue:   make(chan *ask, 1024),
		changed: o.Changed,
		done:    make(chan struct{}),
	}
	s.Reconfigure(o.PerSecond, o.Burst)
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go s.serve(ctx, &link{at: at, dial: dial, timeout: o.Timeout, probe: o.Prefix + "probe"})
	return s
}

// Admit takes a token from the key's bucket. When there is none it takes nothing
// and returns a time after which to try again. away tells that the store was not
// there to be asked, so that the answer is Options.Failure's. It does not keep
// key, and allocates nothing while a slice lasts.
func (s *Shared) Admit(key []byte) (retryAfter time.Duration, ok, away bool) {
	if s.budget.Load() == nil {
		return 0, true, false
	}
	var digest [sha256.Size]byte
	name := nameOf(key, &digest)
	i, spare := s.table.place(name)
	v, retryAfter, a := s.try(name, i, spare)
	if v == undecided {
		v, retryAfter = s.await(a, name, i, spare)
	}
	if v == storeless {
		retryAfter, ok = s.alone(key)
		return retryAfter, ok, true
	}
	return retryAfter, v == admitted, false
}

type verdict uint8

const (
	undecided verdict = iota // the store is being asked
	admitted
	refused
	storeless
)

// try decides by what is known here; if nothing is, it returns the question that was put.
func (s *Shared) try(name []byte, i, spare int) (verdict, time.Duration, *ask) {
	sh := &s.table.shards[i]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	b := s.budget.Load()
	if b == nil {
		return admitted, 0, nil
	}
	now := s.table.now()
	k, own := sh.find(name, spare, now)
	if own {
		spare = -1
	}
	v := &k.v
	if v.asking == nil && k.full == math.MaxInt64 {
		k.full = now // it came from a shared bucket, and is needed for no answer
	}
	if now-v.taken >= int64(sliceAge) {
		v.tokens = 0
	}
	switch {
	case v.tokens > 0:
		v.tokens--
		if v.want >= early && v.tokens <= v.want/4 && now >= v.again && v.asking == nil && !s.away.Load() {
			s.ask(b, i, spare, name, k, now) // if the queue is full, then later
		}
		return admitted, 0, nil
	case now < v.again:
		return refused, time.Duration(v.refused - now), nil
	case s.away.Load():
		return storeless, 0, nil
	}
	if v.asking == nil && !s.ask(b, i, spare, name, k, now) {
		return storeless, 0, nil
	}
	v.asking.waiters++
	return undecided, 0, v.asking
}

// ask puts a question for a bucket, whose lock is held; false if the queue is full.
func (s *Shared) ask(b *budget, i, spare int, name []byte, k *bucket[slice], now int64) bool {
	v := &k.v
	want := 1
	if v.granted > 0 {
		elapsed := max(now-v.taken, int64(time.Millisecond))
		pace := float64(v.granted-v.tokens) / float64(elapsed)
		want = min(max(int(pace*float64(horizon)), 1), grow*v.want, b.most)
	}
	want = max(want, v.unmet)
	a := &ask{shard: i, spare: spare, want: want, budget: b, done: make(chan struct{})}
	if spare < 0 {
		a.name, a.key = k.name, s.prefix+hashed(name)
	} else {
		a.key = s.prefix + "~" + strconv.Itoa(i) + "." + strconv.Itoa(spare)
	}
	select {
	case s.queue <- a:
	default:
		return false
	}
	v.asking, v.want = a, want
	k.full = math.MaxInt64 // it is needed for the answer
	return true
}

// hashed is what the store is told of a key: neither long, nor what it means. A
// header's value may be a credential.
func hashed(name []byte) string {
	sum := sha256.Sum256(name)
	return base64.RawURLEncoding.EncodeToString(sum[:15])
}

// await waits for the answer, and as long as others take all that came with it, for the next.
func (s *Shared) await(a *ask, name []byte, i, spare int) (v verdict, retryAfter time.Duration) {
	t := time.NewTimer(s.timeout)
	defer t.Stop()
	for {
		select {
		case <-a.done:
			if a.failed {
				return storeless, 0
			}
		case <-t.C:
			s.away.Store(true)
			select {
			case s.wake <- struct{}{}:
			default: // the goroutine has been called, and not come yet
			}
			return storeless, 0
		}
		if v, retryAfter, a = s.try(name, i, spare); v != undecided {
			return v, retryAfter
		}
	}
}

// alone answers without the store.
func (s *Shared) alone(key []byte) (retryAfter time.Duration, ok bool) {
	s.without.Add(1)
	switch s.failure {
	case Allow:
		return 0, true
	case Deny:
		return max(time.Duration(s.next.Load()-s.table.now()), time.Second), false
	default:
		return s.local.Admit(key)
	}
}

// answer is what the store said to an ask.
type answer struct {
	granted int
	wait    time.Duration // until there is another token; 0 when all that was wanted was granted
	full    time.Duration // until the bucket is full
}

// settle gives an answer to those who wait for it; nil is that there was none.
func (s *Shared) settle(a *ask, got *answer) {
	sh := &s.table.shards[a.shard]
	sh.mu.Lock()
	k := &sh.shared[max(a.spare, 0)]
	if a.spare < 0 {
		k = &sh.slots[sh.index[a.name]] // nobody forgets it while it is needed
	}
	now := s.table.now()
	v := &k.v
	v.asking, k.full = nil, now
	if got != nil {
		if now-v.taken >= int64(sliceAge) {
			v.tokens = 0
		}
		v.tokens += got.granted
		v.granted, v.taken = v.tokens, now
		v.unmet = max(a.waiters-v.tokens, 0)
		if got.wait > 0 {
			// Tokens that come meanwhile are not lost: they gather in the store.
			pause := min(float64(hold), a.budget.interval*1e3*float64(a.budget.burst)/2)
			v.refused = now + max(int64(got.wait), int64(pause))
			v.again = min(v.refused, now+int64(recheck))
		}
		k.full = max(now+int64(got.full), v.refused)
	}
	sh.mu.Unlock()
	a.failed = got == nil
	close(a.done)
}

// wanted returns for how many tokens to ask: a slice, and at least one for each who waits.
func (s *Shared) wanted(a *ask) int {
	sh := &s.table.shards[a.shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return min(max(a.want, a.waiters), a.budget.burst)
}

// Reconfigure changes rate and burst. In the store, buckets keep what they owe;
// slices that are out remain valid. Members of a fleet may differ for a while.
func (s *Shared) Reconfigure(perSecond float64, burst int) {
	s.local.Reconfigure(perSecond, burst)
	var b *budget
	if perSecond > 0 {
		burst = max(burst, 1)
		b = &budget{
			// The time of an empty bucket is kept below 31 years of µs, which a double counts exactly enough.
			interval: min(1e6/perSecond, 1e15/float64(burst)),
			burst:    burst,
			most:     int(max(min(perSecond*horizon.Seconds(), float64(burst)/4), 1)),
		}
	}
	s.budget.Store(b)
	s.table.each(func(int) {}, func(k *bucket[slice]) { k.v.again = 0 })
}

// SharedStats are counts since the beginning, and whether the store is away.
type SharedStats struct {
	Away    bool
	Err     error  // the last reason why it was
	Asked   uint64 // slices asked for
	Trips   uint64 // round trips, each for any number of slices
	Failed  uint64 // attempts to reach the store, or to get an answer, that failed
	Without uint64 // admissions answered without the store
	Keys    int    // remembered here
}

// Stats returns the counts.
func (s *Shared) Stats() SharedStats {
	st := SharedStats{
		Away: s.away.Load(), Asked: s.asked.Load(), Trips: s.trips.Load(),
		Failed: s.failed.Load(), Without: s.without.Load(),
	}
	if err := s.trouble.Load(); err != nil {
		st.Err = *err
	}
	st.Keys, _ = s.table.level()
	return st
}

func (s *Shared) String() string   { return "shared budget at " + s.name }
func (s *Shared) GoString() string { return s.String() }

// Close closes the connection and returns when the goroutine has ended. Whoever
// still calls Admit is answered as if the store were away.
func (s *Shared) Close() {
	s.cancel()
	<-s.done
}
