package proxy

import (
	"context"
	"fmt"
	"math"
	"net"
	"time"
)

const (
	// freshGrace is how long a drain waits for the first request of a connection that was accepted just before, and for
	// another one of a caller who has to be told that it is the last.
	freshGrace = time.Second

	// drainEvery is how often a drain looks around.
	drainEvery = 20 * time.Millisecond

	// lastWords is how long a session that was cut may take to say so to a caller who reads. Mostly that is for a CPU to run on.
	lastWords = time.Second
)

// Drain lets every exchange in progress end and returns when nobody is served any more. When ctx ends first it cuts the
// rest, and its error says how many those were. Nothing accepts any more when it is called.
//
// Of the connections that are idle then, up to keep are returned, by listener, for another process: nothing of a next
// request has been read from them. They are not closed. Their callers are served until all that was in progress when
// Drain was called has ended; what they send afterwards waits. The others are told that their last response is the last, or
// closed when they send no request for a while.
func (s *Server) Drain(ctx context.Context, keep int) (kept map[string][]net.Conn, err error) {
	d := drain{server: s, begin: time.Now(), keep: keep, busy: s.busy(keep)}
	done := make(chan struct{})
	go func() {
		s.group.Wait()
		close(done)
	}()
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	expired := ctx.Done()
	for waiting := true; waiting; {
		d.step(expired == nil)
		select {
		case <-done:
			waiting = false
		case <-expired:
			expired = nil
		case <-tick.C:
		}
	}
	if d.lost > 0 {
		err = fmt.Errorf("%d connections cut in the middle of an exchange: %w", d.lost, context.Cause(ctx))
	}
	return s.stop(), err
}

// stop ends the sweeper and the lot, and returns what is kept.
func (s *Server) stop() map[string][]net.Conn {
	close(s.stopped)
	s.mu.Lock()
	sweeping := s.sweeping
	s.mu.Unlock()
	if sweeping {
		<-s.swept
	}
	if s.lot != nil {
		_ = s.lot.Close() // nobody is parked there
	}
	s.crew.end()
	s.callers.Close()
	s.closer.Retire()
	kept := make(map[string][]net.Conn)
	for _, x := range s.kept {
		kept[x.name] = append(kept[x.name], x.socket.Detach())
	}
	return kept
}

// drain is one call of Drain.
type drain struct {
	server *Server
	begin  time.Time
	keep   int
	busy   map[*session]uint32 // sessions that were carrying an exchange at the beginning, with the number of that
	lost   int
}

// busy begins the drain: from now on, as many callers as cannot be kept are told that the response they get is the last.
func (s *Server) busy(keep int) map[*session]uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surplus.Store(math.MaxInt64)
	if keep > 0 {
		s.surplus.Store(int64(len(s.sessions) - keep))
	}
	s.draining.Store(true)
	busy := make(map[*session]uint32)
	for x := range s.sessions {
		if p := phaseOf(x.word.Load()); p == phaseHead || p.exchanging() {
			busy[x] = x.turn.Load()
		}
	}
	return busy
}

// step takes the drain further. expired: its time is over.
func (d *drain) step(expired bool) {
	s := d.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for x, turn := range d.busy {
		if _, lives := s.sessions[x]; !lives || x.turn.Load() != turn {
			delete(d.busy, x)
		}
	}
	if expired {
		d.lost += s.cut(d.keep > 0) // again and again: a session may have been about to start over
	}
	var room, extra int // connections that can be taken over, and those for which it is too late
	if d.keep > 0 {
		extra = len(s.sessions) + len(s.kept) - d.keep
		if len(d.busy) == 0 || expired {
			room = d.keep - len(s.kept)
		}
	}
	for x := range s.sessions {
		if phaseOf(x.word.Load()) == cancelKeep { // on its way
			room--
		}
	}
	late := time.Since(d.begin) > freshGrace
	for x := range s.sessions {
		w := x.word.Load()
		switch p := phaseOf(w); {
		case !p.idle():
		case d.keep == 0:
			if !p.fresh() || late {
				x.cancel(w, cancelDrain)
			}
		case late && extra > 0:
			x.cancel(w, cancelDrain)
			extra--
		case room > 0 && !x.probe:
			x.cancel(w, cancelKeep)
			room--
		}
	}
}

// keep takes the connection of a session that ends over into what Drain returns.
func (s *Server) keep(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, x)
}

// cut ends all sessions and returns how many were in the middle of an exchange. Those that are idle may be spared, to be
// kept. The caller holds mu.
func (s *Server) cut(spare bool) (n int) {
	now := time.Now()
	for x := range s.sessions {
		for {
			w := x.word.Load()
			if spare && (phaseOf(w).idle() || phaseOf(w) == cancelKeep) {
				break
			}
			if x.told.IsZero() {
				x.told = now
			}
			if phaseOf(w).cancelled() {
				if x.socket.WriteBlocked() || now.Sub(x.told) >= lastWords {
					x.socket.Interrupt()
				}
				break
			}
			if x.cancel(w, cancelCut) {
				if phaseOf(w).exchanging() && !x.cut {
					n++
				}
				x.cut = true
				break
			}
		}
	}
	return n
}
