// Package proxy carries exchanges: from a caller's connection, by the current snapshot, to an upstream and back.
package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
	callers "github.com/mtls-proxy/mtls-proxy/internal/caller"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// Options are what a Server works with. All of it is required.
type Options struct {
	Store   *snapshot.Store
	Metrics *metrics.Metrics
	Log     *logging.Log
}

// Stats counts what is going on.
type Stats struct {
	ActiveConnections int            // of callers
	ActiveExchanges   int            // in progress, tunnels included
	Listeners         map[string]int // connections by listener
}

// Server serves callers. Serve, Probe and Stats may be called at any time until Drain has returned.
type Server struct {
	o    Options
	base time.Time // when the clock began
	ids  *requestIDs

	callers *parties

	told     atomic.Pointer[time.Time] // when the last sweep was
	clock    atomic.Int64              // that in nanoseconds since base
	date     atomic.Pointer[[]byte]
	draining atomic.Bool
	surplus  atomic.Int64 // connections that a drain has still to say good-bye to
	lot      *conn.Lot    // of parked sessions; set before there is any, nil where it cannot be had
	works    sync.Pool    // of *work
	closer   conn.Closer  // of callers' connections
	crew     crew         // of sessions

	group    sync.WaitGroup // of sessions, parked ones included
	refusing atomic.Int32   // connections that are being told that there is no room

	mu        sync.Mutex // guards the following
	sessions  map[*session]struct{}
	adopted   uint64                  // sessions so far
	serving   []net.Addr              // where Serve accepts
	probes    map[netip.AddrPort]bool // where probes come from
	unix      map[string]bool         // likewise, for Unix sockets
	kept      []*session              // what the next process takes over
	evictable []evictable             // memory for evict
	sweeping  bool                    // the sweeper runs
	stopped   chan struct{}           // closed to end it
	swept     chan struct{}           // closed once it has ended
}

// NewServer returns a Server that serves nobody yet. It starts no goroutine.
func NewServer(o Options) *Server {
	s := &Server{
		o:        o,
		base:     time.Now(),
		ids:      newRequestIDs(),
		callers:  newParties(),
		sessions: make(map[*session]struct{}),
		probes:   make(map[netip.AddrPort]bool),
		unix:     make(map[string]bool),
		stopped:  make(chan struct{}),
		swept:    make(chan struct{}),
	}
	s.works.New = func() any { return &work{chunks: http1.ChunkReader{Response: true}} }
	s.tell(s.base)
	return s
}

// now is t on the clock of deadlines.
func (s *Server) now(t time.Time) int64 { return int64(t.Sub(s.base)) }

// time is time.Now for half its price: that asks for the time twice, by the wall clock and by the one for intervals. This
// asks for the second and adds what has passed since the last sweep.
func (s *Server) time() time.Time {
	t := *s.told.Load()
	return t.Add(time.Since(t))
}

// tell sets the coarse clock and the date.
func (s *Server) tell(t time.Time) {
	s.told.Store(&t)
	s.clock.Store(s.now(t))
	text := http1.AppendDate(nil, t)
	s.date.Store(&text)
}

const (
	// acceptPause is how long accepting rests when the kernel has nothing to give a connection with.
	acceptPause = 50 * time.Millisecond

	// mostRefusing bounds how many callers are told at a time that there is no room. The others are just closed.
	mostRefusing = 64
)

// ErrClosing is the cause of a context that ends because the listening socket is about to be closed.
var ErrClosing = errors.New("the listening socket is about to be closed")

// Serve accepts callers of the listener of that name until ctx ends, which is no error, or ln fails. It does not close
// ln; what it accepted lives on. ln must have deadlines. If the cause of ctx is ErrClosing, connections in the backlog are still
// served: closing the socket would reset them.
func (s *Server) Serve(ctx context.Context, listener string, ln net.Listener) error {
	acceptor, err := conn.NewAcceptor(ln, &s.closer)
	if err != nil {
		return err
	}
	defer func() { _ = acceptor.Close() }()
	if err := acceptor.SetDeadline(time.Time{}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = acceptor.SetDeadline(time.Unix(1, 0)) })()
	s.open(ln.Addr())
	defer s.closed(ln.Addr())
	for {
		c, err := acceptor.Accept()
		switch {
		case err == nil:
			if !s.adopt(context.WithoutCancel(ctx), listener, c) { // lives on
				_ = c.Close()
			}
		case ctx.Err() != nil:
			if errors.Is(context.Cause(ctx), ErrClosing) {
				s.acceptRest(context.WithoutCancel(ctx), listener, acceptor)
			}
			return nil
		case isPassing(err):
			if l := s.o.Store.Current().Listener(listener); l != nil {
				l.Metrics.Refused(metrics.RefusedByAccept)
			}
			pause(ctx, acceptPause)
			_ = acceptor.SetDeadline(time.Time{}) // whoever served ln before may have set one late
			if ctx.Err() != nil {
				return nil
			}
		default:
			return err
		}
	}
}

// maxRest bounds how many are accepted from a socket that is about to be closed, in case they come as fast as that.
const maxRest = 10_000

// acceptRest accepts the connections in the backlog.
func (s *Server) acceptRest(ctx context.Context, listener string, acceptor *conn.Acceptor) {
	for range maxRest {
		c, err := acceptor.AcceptNow()
		switch {
		case err == nil:
			if !s.adopt(ctx, listener, c) {
				_ = c.Close()
			}
		case errors.Is(err, conn.ErrWouldBlock) || !isPassing(err):
			return
		}
	}
}

// isPassing tells errors of one connection, and shortages, from those of the socket.
func isPassing(err error) bool {
	for _, errno := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR, syscall.EPERM, syscall.EPROTO,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// open notes an address that is served, and sees to it that the sweeper runs.
func (s *Server) open(a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = append(s.serving, a)
	s.watch()
}

// watch sees to it that the sweeper runs. The caller holds mu.
func (s *Server) watch() {
	if !s.sweeping {
		s.sweeping = true
		s.lot, _ = conn.NewLot() // without one, idle callers cost more
		go s.sweep()
	}
}

func (s *Server) closed(a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.serving {
		if s.serving[i] == a {
			s.serving = append(s.serving[:i:i], s.serving[i+1:]...)
			return
		}
	}
}

// adopt begins a session for c. Its dials end with ctx.
func (s *Server) adopt(ctx context.Context, listener string, c net.Conn) bool {
	snap := s.o.Store.Serving(listener)
	if snap == nil || snap.Listener(listener) == nil {
		return false
	}
	x := newSession(s, snap, snap.Listener(listener), c)
	s.mu.Lock()
	s.watch()
	x.probe = s.isProbe(c.RemoteAddr())
	s.adopted++
	x.number = s.adopted
	s.sessions[x] = struct{}{}
	s.mu.Unlock()
	x.metrics.Accepted()
	live := func() { x.live(ctx) }
	x.start = func() { s.crew.run(live) }
	s.group.Add(1)
	x.start()
	return true
}

// Adopt serves a connection that a process before this one had accepted for that listener, and of which nothing was read
// since its last answer. False: there is no such listener any more, and c stays the caller's own.
func (s *Server) Adopt(ctx context.Context, listener string, c net.Conn) bool {
	return s.adopt(context.WithoutCancel(ctx), listener, c)
}

// forget ends what adopt began.
func (s *Server) forget(x *session) {
	s.mu.Lock()
	delete(s.sessions, x)
	s.mu.Unlock()
	x.metrics.Closed()
	s.group.Done()
}

// Stats returns what is going on now.
func (s *Server) Stats() Stats {
	st := Stats{Listeners: make(map[string]int)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.sessions {
		if x.probe {
			continue
		}
		st.ActiveConnections++
		st.Listeners[x.name]++
		if phaseOf(x.word.Load()).exchanging() {
			st.ActiveExchanges++
		}
	}
	return st
}

// evict ends a session that can give its place up to newcomer, and reports whether there was one. Of the callers that have such sessions
// it takes the one with the most, and of that one's the session that has waited for longest: for a request, or for the rest of one's head.
// Those that got their last answer, and are only given the time to read it, go first.
func (s *Server) evict(newcomer *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := &s.o.Store.Current().Limits
	all := slices.Grow(s.evictable, len(s.sessions))
	defer func() {
		clear(all[:cap(all)])
		s.evictable = all[:0]
	}()
	for range 4 { // the choice may have got a request meanwhile
		all = all[:0]
		for x := range s.sessions {
			w := x.word.Load()
			e := evictable{x: x, word: w, leaving: phaseOf(w).evicted()}
			if !x.counted.Load() || x.probe || !e.leaving && !phaseOf(w).evictable() {
				continue
			}
			e.owner, e.since = x.ownerOf(), x.deadline.Load()
			switch phaseOf(w) {
			case phaseHead:
				e.since -= int64(limits.HeaderTimeout)
			case phaseLinger:
				e.since -= int64(lingerFor)
			default:
				e.since -= int64(limits.IdleTimeout)
			}
			all = append(all, e)
		}
		e, ok := firstToGo(all, newcomer.ownerOf())
		if !ok {
			return false
		}
		why := cancelEvict
		switch phaseOf(e.word) {
		case phaseHead:
			why = cancelShed
		case phaseLinger:
			why = cancelLinger
		}
		if e.x.cancel(e.word, why) {
			return true
		}
	}
	return false
}

// evictable is a session that can give its place up, or is just doing that.
type evictable struct {
	x       *session
	word    uint64
	owner   string
	since   int64 // it waits, on the server's clock
	kin     int   // how many the owner has
	leaving bool
}

// ownerOf tells callers apart while places are short: on this host by their user, which takes a question to the kernel once for each
// connection. The caller holds server.mu.
func (x *session) ownerOf() string {
	if x.owner == "" {
		x.owner = string(x.share)
		if x.local {
			if who, err := x.server.callers.Of(x.socket, callers.User); err == nil && len(who.User) > 0 {
				x.owner = string(who.User)
			}
		}
	}
	return x.owner
}

// firstToGo chooses among all for a newcomer of that owner. It gets no place of another owner that has no more of them: in a flood, those of
// its own may be leaving already. False: there is none.
func firstToGo(all []evictable, newcomer string) (first evictable, ok bool) {
	mine, count := new(int), make(map[string]*int)
	count[newcomer] = mine
	last, n := newcomer, mine // a flood is mostly of one owner
	of := func(owner string) *int {
		if owner == last {
			return n
		}
		if n = count[owner]; n == nil {
			n = new(int)
			count[owner] = n
		}
		last = owner
		return n
	}
	for i := range all {
		*of(all[i].owner)++
	}
	for i := range all {
		e := &all[i]
		e.kin = *of(e.owner)
		if e.leaving || e.owner != newcomer && e.kin <= *mine {
			continue
		}
		if !ok || e.goesBefore(&first) {
			first, ok = *e, true
		}
	}
	return first, ok
}

// goesBefore reports whether e is evicted rather than o. How long they have waited is known only
// to a tick of the clock, in which a flood of connections may come: of these, those go first that have got no answer yet, and
// of those again the one that came first.
func (e *evictable) goesBefore(o *evictable) bool {
	if e.kin != o.kin {
		return e.kin > o.kin
	}
	if a, b := phaseOf(e.word) == phaseLinger, phaseOf(o.word) == phaseLinger; a != b {
		return a
	}
	if e.since != o.since {
		return e.since < o.since
	}
	if a, b := e.x.turn.Load() == 0, o.x.turn.Load() == 0; a != b {
		return a
	}
	return e.x.number < o.x.number
}

// enter takes a place among the connections for x, making room if need be, and one among its caller's. It returns the
// setting that says no, or "".
func (s *Server) enter(x *session) (limit string) {
	if !x.shares.Enter(x.share) {
		return "listener." + x.name + ".max_connections_per_caller"
	}
	gate := x.snap.Limits.Connections
	if !gate.TryEnter() && !s.squeeze(gate, x) {
		x.shares.Leave(x.share)
		return "limits.max_connections"
	}
	x.counted.Store(true)
	return ""
}

// settling is how long somebody who is leaving, or done with a request, may take to be seen as such.
const settling = 50 * time.Millisecond

// squeeze gets a place where there is none, at the cost of a caller that has many.
func (s *Server) squeeze(gate *admission.Gate, x *session) bool {
	if !s.evict(x) {
		if gate.Enter(settling, nil) {
			return true
		}
		if !s.evict(x) {
			return false
		}
	}
	return gate.Enter(time.Second, nil)
}

// lend and back keep what exchanges work with, memory for a request included.
func (s *Server) lend(b *conn.Buffers) *work {
	w := s.works.Get().(*work)
	if w.in == nil {
		w.in = b.Small()
	}
	return w
}

func (s *Server) back(w *work, b *conn.Buffers) {
	if len(w.in.B) != conn.SmallBuffer {
		b.Put(w.in)
		w.in = nil
	}
	b.Put(w.up)
	b.Put(w.out)
	b.Put(w.spare)
	w.up, w.out, w.spare = nil, nil, nil
	w.clear()
	s.works.Put(w)
}
