package upstream

import (
	"errors"
	"slices"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// reserved is a connection that carried a request with a body. Until ready, only the caller who sent it may use it again: a server that
// did not read the body as one takes it for a request, and that one's answer would become another caller's.
type reserved struct {
	conn  *Conn
	owner uint64 // 0: not even the caller
	ready time.Time
}

// Take returns a kept connection that can carry an exchange now, the one used last, or nil. The caller calls Keep or
// Close on it.
func (e *Endpoint) Take(now time.Time) *Conn {
	for {
		c := e.pop(now)
		if c == nil || e.usable(c, now) {
			return c
		}
	}
}

// TakeReserved is Take for the owner of connections that were kept with Reserve. Without one of those it returns nil.
func (e *Endpoint) TakeReserved(now time.Time, owner uint64) *Conn {
	for {
		c := e.popReserved(owner)
		if c == nil || e.usable(c, now) {
			return c
		}
	}
}

// usable reports whether c can carry an exchange, and closes it if it cannot. Nothing that the upstream has said by now is an answer
// to a request that is still to be sent, so that is looked for each time, however short c was idle.
func (e *Endpoint) usable(c *Conn, now time.Time) bool {
	why, fit := c.fit(now)
	switch {
	case !fit:
	case c.socket.Interrupted(): // the exchange before was cancelled just when it had ended
		why, fit = metrics.ClosedFault, false
	case c.wire.Buffered() || c.socket.Readable():
		said := c.said()
		if said == unasked {
			e.Distrust(now, c.reserved || !c.ready.IsZero())
		}
		why, fit = metrics.ClosedByUpstream, said == nothing
	}
	if !fit {
		c.close(why)
		return false
	}
	c.reused, c.mark = true, c.wire.Sent()
	c.reserved = now.Before(c.ready)
	c.owner, c.ready = 0, time.Time{}
	e.up.active.Add(1)
	e.o.Metrics.ConnReused()
	return true
}

func (e *Endpoint) pop(now time.Time) *Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.idle) - 1; n >= 0 {
		c := e.idle[n]
		e.idle[n] = nil
		e.idle = e.idle[:n]
		return c
	}
	if len(e.reserved) == 0 || now.Before(e.reserved[0].ready) {
		return nil
	}
	return e.unreserve(0)
}

func (e *Endpoint) popReserved(owner uint64) *Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.reserved {
		if e.reserved[i].owner == owner {
			return e.unreserve(i)
		}
	}
	return nil
}

// unreserve takes out the i-th of the reserved connections. e.mu is held.
func (e *Endpoint) unreserve(i int) *Conn {
	c := e.reserved[i].conn
	e.reserved = slices.Delete(e.reserved, i, i+1)
	return c
}

// fit tells whether c is young enough.
func (c *Conn) fit(now time.Time) (why metrics.CloseReason, ok bool) {
	p := &c.e.o.Pool
	switch {
	case p.IdleTimeout > 0 && now.Sub(c.since) >= p.IdleTimeout, !c.until.IsZero() && !now.Before(c.until):
		return metrics.ClosedIdle, false
	case p.MaxAge > 0 && now.Sub(c.born) >= p.MaxAge, now.After(c.e.o.Identity.NotAfter):
		return metrics.ClosedAge, false
	}
	return 0, true
}

// words is what an upstream has said on a connection that carries no exchange, apart from what is of TLS alone.
type words uint8

const (
	nothing words = iota
	ended         // it closed the connection
	unasked       // bytes that belong to no request
)

// said looks for that: in the socket, in what was read ahead, and with crypto/tls.
func (c *Conn) said() words {
	c.wire.Instant(true)
	defer c.wire.Instant(false)
	var b [1]byte
	n, err := c.Read(b[:])
	switch {
	case n > 0:
		return unasked
	case !errors.Is(err, conn.ErrWouldBlock):
		return ended
	}
	c.wire.Rest()
	return nothing
}

// distrustFor is for how long an Endpoint is taken for what it was seen to be.
const distrustFor = time.Minute

// Distrust notes that the server has sent bytes that belong to no request. A moment later, they would have been taken for the answer to the
// next one. For a minute no connection is kept; if body is set, as the request before had one and its bytes may have been taken for a
// request, none is kept after a request with a body.
func (e *Endpoint) Distrust(now time.Time, body bool) {
	until := &e.soloUntil
	if body {
		until = &e.soloAfterBodyUntil
	}
	until.Store(now.Add(distrustFor).UnixNano())
}

// trusts reports whether c may be kept.
func (e *Endpoint) trusts(c *Conn, now time.Time) bool {
	return now.UnixNano() >= e.soloUntil.Load() && (c.ready.IsZero() || now.UnixNano() >= e.soloAfterBodyUntil.Load())
}

// Keep gives c back after an exchange that left it in order. promise is for how long the upstream said that it will
// keep it, less than 0 when it did not say. How old c is Take and sweep look at.
func (c *Conn) Keep(now time.Time, promise time.Duration) {
	e := c.e
	e.up.active.Add(-1)
	c.since, c.until = now, time.Time{}
	if promise >= 0 {
		// It goes on its way a little before that, or a request would meet the close half way.
		c.until = now.Add(promise - min(promise/2, time.Second))
	}
	if c.brimful || c.wire.Buffered() {
		said := c.said()
		if said == unasked {
			e.Distrust(now, c.reserved || !c.ready.IsZero())
		}
		if said != nothing {
			c.close(metrics.ClosedByResponse) // there is more than the response, which the next request would get
			return
		}
	}
	if !e.trusts(c, now) {
		c.close(metrics.ClosedByResponse)
		return
	}
	c.wire.Rest()
	e.mu.Lock()
	switch {
	case e.retired:
		e.mu.Unlock()
		c.close(metrics.ClosedRetired)
	case !c.ready.IsZero() && e.o.Pool.MaxIdle > 0 && len(e.reserved) < maxReserved:
		at, _ := slices.BinarySearchFunc(e.reserved, c.ready, func(r reserved, t time.Time) int { return r.ready.Compare(t) })
		e.reserved = slices.Insert(e.reserved, at, reserved{c, c.owner, c.ready})
		e.mu.Unlock()
	case len(e.idle) >= e.o.Pool.MaxIdle, !c.ready.IsZero():
		e.mu.Unlock()
		c.close(metrics.ClosedFull)
	default:
		e.idle = append(e.idle, c)
		e.mu.Unlock()
	}
}

// maxReserved bounds the connections that wait for their time, beside those that pool.max_idle permits.
const maxReserved = 1024

// Reserve has Keep keep c for the exchanges of owner alone until ready; an owner of 0 has none.
func (c *Conn) Reserve(owner uint64, ready time.Time) { c.owner, c.ready = owner, ready }

// Reserved reports whether c was taken by its owner before it was ready for others. An answer that was not asked for may still come
// on it, in front of those to its owner's requests, until it has rested once.
func (c *Conn) Reserved() bool { return c.reserved }

// quiet is how long a connection is idle before a sweep asks whether the upstream has closed it.
const quiet = 50 * time.Millisecond

// askPause is the time from one such question to the next. Each is a system call, and there may be thousands of connections;
// what an exchange takes is looked at again in any case.
const askPause = time.Second

// sweep closes idle connections that are too old or that the upstream has closed. Reserved ones whose time is over are idle from
// then on, or are closed where pool.max_idle permits no more.
func (e *Endpoint) sweep(now time.Time) {
	var (
		closed [16]*Conn
		why    [16]metrics.CloseReason
		n      int
	)
	e.mu.Lock()
	for n < len(closed) && len(e.reserved) > 0 && !now.Before(e.reserved[0].ready) {
		c := e.unreserve(0)
		if len(e.idle) < e.o.Pool.MaxIdle {
			e.idle = append(e.idle, c)
		} else {
			closed[n], why[n] = c, metrics.ClosedFull
			n++
		}
	}
	kept := e.idle[:0]
	for _, c := range e.idle {
		if n < len(closed) {
			reason, fit := c.fit(now)
			if fit && now.Sub(c.since) > quiet && now.Sub(c.looked) >= askPause {
				c.looked = now
				if c.socket.PeerGone() {
					reason, fit = metrics.ClosedByUpstream, false
				}
			}
			if !fit {
				closed[n], why[n] = c, reason
				n++
				continue
			}
		}
		kept = append(kept, c)
	}
	clear(e.idle[len(kept):])
	e.idle = kept
	e.mu.Unlock()
	for i := range n {
		closed[i].close(why[i])
	}
}
