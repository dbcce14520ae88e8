package metrics

import (
	"sync/atomic"
	"time"
)

// CloseReason is why a connection to an upstream was closed.
type CloseReason uint8

const (
	ClosedIdle       CloseReason = iota // unused for longer than pool.idle_timeout
	ClosedAge                           // older than pool.max_age
	ClosedFull                          // more idle connections than pool.max_idle
	ClosedByUpstream                    // the upstream closed it, or was found to have closed it
	ClosedByResponse                    // the response did not permit another request
	ClosedCallerGone                    // the caller left in the middle of its exchange
	ClosedFault                         // an exchange on it failed
	ClosedTunnel                        // it carried an upgraded connection to its end
	ClosedRetired                       // a reload replaced the pool, or the process stops
	closeReasons
)

func (r CloseReason) String() string {
	switch r {
	case ClosedIdle:
		return "idle"
	case ClosedAge:
		return "age"
	case ClosedFull:
		return "pool_full"
	case ClosedByUpstream:
		return "upstream"
	case ClosedByResponse:
		return "response"
	case ClosedCallerGone:
		return "caller_gone"
	case ClosedTunnel:
		return "tunnel"
	case ClosedRetired:
		return "retired"
	default:
		return "fault"
	}
}

// Upstream counts what happens with one upstream and its connections. Its methods neither allocate nor lock.
type Upstream struct {
	name  string
	since time.Time
	tally tally

	table  *faultTable
	ended  []atomic.Uint64 // requests that each fault of table ended; nil: only totals are counted
	struck []atomic.Uint64 // how often each fault of table occurred

	opened      atomic.Uint64
	closed      [closeReasons]atomic.Uint64
	handshakes  [2]atomic.Uint64 // full, resumed
	handshaking *durations

	retries       [retryReasons]atomic.Uint64
	retriesDenied atomic.Uint64
	ejections     atomic.Uint64
	transitions   [breakerStates]atomic.Uint64
	healthChecks  [2]atomic.Uint64 // failed, passed
	dnsFailures   atomic.Uint64
}

// Upstream returns the counters of the upstream of that name, the same ones for as long as it stays configured.
func (m *Metrics) Upstream(name string) *Upstream {
	name = orNone(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.upstreams[name]; u != nil {
		return u
	}
	faults := make([]atomic.Uint64, 2*len(m.faults.faults))
	n := len(m.faults.faults)
	u := &Upstream{name: name, since: time.Now(), table: m.faults, ended: faults[:n:n], struck: faults[n:]}
	if name != None { // has no connections
		u.handshaking = m.handshakes.with(name)
	}
	m.upstreams[name] = u
	return u
}

// Name is the label that these counters carry.
func (u *Upstream) Name() string { return u.name }

// ConnOpened counts a connection that is ready for its first request.
func (u *Upstream) ConnOpened() { u.opened.Add(1) }

// ConnReused counts a request sent on a connection that was kept.
func (u *Upstream) ConnReused() { u.tally.reused.Add(1) }

// ConnClosed counts the end of a connection that ConnOpened counted.
func (u *Upstream) ConnClosed(why CloseReason) {
	u.closed[min(why, closeReasons-1)].Add(1)
}

// Handshake counts a TLS handshake that succeeded and the time it took.
func (u *Upstream) Handshake(resumed bool, d time.Duration) {
	i := 0
	if resumed {
		i = 1
	}
	u.handshakes[i].Add(1)
	u.handshaking.observe(d)
}

// HandshakeError counts a failure to connect that ended no exchange, because another try or nobody waited for it.
// Those that did end one are counted by Fault.
func (u *Upstream) HandshakeError(token string) { u.fault(token, false) }

func (u *Upstream) fault(token string, endedExchange bool) {
	i, ok := u.table.index[token]
	if !ok {
		return
	}
	u.table.total[i].Inc()
	if u.ended == nil {
		return
	}
	u.struck[i].Add(1)
	if endedExchange {
		u.ended[i].Add(1)
	}
}
