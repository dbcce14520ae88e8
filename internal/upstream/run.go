package upstream

import (
	"context"
	"sync"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/breaker"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/resolve"
)

// EventKind is what has changed.
type EventKind uint8

// The kinds of events.
const (
	EndpointEjected   EventKind = iota // Endpoint, For
	EndpointUnhealthy                  // Endpoint, Err
	EndpointHealthy                    // Endpoint
	BreakerChanged                     // Change
	ResolveFailed                      // Err; once, until it succeeds again
	ResolveRecovered
	ConnOpened // Endpoint, TLS, Resumed, For: to make it; for developers alone
	ConnClosed // Endpoint, Why, For: since it was made; likewise
)

// Event is a change of state that an operator may want to know of.
type Event struct {
	Kind     EventKind
	At       time.Time
	Upstream string
	Endpoint string         // its Address
	For      time.Duration  // how long it is ejected, or see the kind
	Change   breaker.Change // of the circuit breaker
	Err      error
	TLS      uint16              // the version
	Resumed  bool                // the TLS session
	Why      metrics.CloseReason // a connection was closed
}

// Told is where Events go. Only further events wait for it.
type Told struct {
	Event   func(Event)
	Verbose func() bool // whether those for developers are wanted now; nil: never
}

// maxEvents is how many events wait for Run to tell them. What does not fit is counted all the same, and not told.
const maxEvents = 64

// events are those that wait for Run. They take memory only while there are some: thousands of upstreams never have any.
type events struct {
	mu      sync.Mutex // guards waiting
	waiting []Event
	some    chan struct{} // holds one while there may be some
}

func newEvents() events { return events{some: make(chan struct{}, 1)} }

func (q *events) put(e Event, most int) {
	q.mu.Lock()
	if len(q.waiting) < most {
		q.waiting = append(q.waiting, e)
	}
	q.mu.Unlock()
	q.wake()
}

// wake has Run look for events and for endpoints to recover.
func (q *events) wake() {
	select {
	case q.some <- struct{}{}:
	default:
	}
}

func (q *events) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}

// tell keeps an event for Run. It does not wait.
func (u *Upstream) tell(e Event) {
	e.Upstream = u.o.Name
	if e.At.IsZero() {
		e.At = time.Now()
	}
	u.events.put(e, maxEvents)
}

// isVerbose reports whether events for developers are wanted.
func (u *Upstream) isVerbose() bool {
	wanted := u.verbose.Load()
	return wanted != nil && (*wanted)()
}

// tellVerbosely is tell for events that only developers want. It leaves room for the others.
func (u *Upstream) tellVerbosely(e Event) {
	e.Upstream, e.At = u.o.Name, time.Now()
	u.events.put(e, maxEvents/2)
}

// Run keeps an Upstream up to date until ctx is done or it is retired: it looks names up, again and again, checks
// endpoints as Options.Check says, and tries those that get no exchanges. It passes each Event to told, which may be nil. It is called
// once. All goroutines that it starts have ended when it returns.
func (u *Upstream) Run(ctx context.Context, told *Told) {
	if told != nil && told.Verbose != nil {
		u.verbose.Store(&told.Verbose)
	}
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-u.over:
		return
	default:
	}
	if u.resolver != nil {
		group.Go(func() { u.resolver.Run(ctx) })
	}
	if u.o.Check.Path != "" {
		group.Go(func() { u.watch(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.over:
			return
		case <-u.events.some:
			u.recoverEndpoints(ctx, &group)
			for _, e := range u.events.take() {
				if told != nil {
					told.Event(e)
				}
			}
		}
	}
}

// answered takes in what a round of lookups came to.
func (u *Upstream) answered(a resolve.Answer) {
	failed := a.Err != nil
	if failed {
		u.o.Metrics.DNSFailed()
	}
	if failed != u.failing {
		kind := ResolveRecovered
		if failed {
			kind = ResolveFailed
		}
		u.tell(Event{Kind: kind, At: a.At, Err: a.Err})
		u.failing = failed
	}
	if a.Changed {
		u.take(a.At, a.Addresses)
	}
}

func (u *Upstream) ejected(m *member, d time.Duration) {
	u.o.Metrics.Ejected()
	u.tell(Event{Kind: EndpointEjected, Endpoint: m.ID, For: d})
}

func (u *Upstream) breakerChanged(c breaker.Change) {
	u.o.Metrics.BreakerChanged(breakerState(c.To))
	u.tell(Event{Kind: BreakerChanged, At: c.At, Change: c})
}
