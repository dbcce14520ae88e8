package upstream

import (
	"errors"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// quiet is how long a connection may have been idle and be taken as it is. After longer, the upstream may have closed
// it, which a look tells; within this time a look would cost more than it saves.
const quiet = 50 * time.Millisecond

// Take returns a kept connection that can carry an exchange now, the one used last, or nil. The caller calls Keep or
// Close on it.
func (e *Endpoint) Take(now time.Time) *Conn {
	for {
		c := e.pop()
		if c == nil {
			return nil
		}
		if why, fit := c.fit(now); !fit {
			c.close(why)
			continue
		}
		if c.socket.Interrupted() { // by whoever watched over the exchange before, just when that had ended
			c.close(metrics.ClosedFault)
			continue
		}
		if (now.Sub(c.since) > quiet || c.doubted || c.wire.Buffered()) && !c.silent() {
			c.close(metrics.ClosedByUpstream)
			continue
		}
		c.reused, c.doubted, c.mark = true, false, c.wire.Sent()
		e.up.active.Add(1)
		e.o.Metrics.ConnReused()
		return c
	}
}

func (e *Endpoint) pop() *Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.idle) - 1
	if n < 0 {
		return nil
	}
	c := e.idle[n]
	e.idle[n] = nil
	e.idle = e.idle[:n]
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

// silent looks whether the upstream has sent anything that is not of TLS alone: a close, or bytes nobody asked for. That
// may be in the socket, in what was read ahead, or with crypto/tls.
func (c *Conn) silent() bool {
	c.wire.Instant(true)
	defer c.wire.Instant(false)
	var b [1]byte
	_, err := c.Read(b[:])
	if !errors.Is(err, conn.ErrWouldBlock) {
		return false
	}
	c.wire.Rest()
	return true
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
	if (c.brimful || c.wire.Buffered()) && !c.silent() {
		c.close(metrics.ClosedByResponse) // there is more than the response: whose answer would it become?
		return
	}
	c.wire.Rest()
	e.mu.Lock()
	switch {
	case e.retired:
		e.mu.Unlock()
		c.close(metrics.ClosedRetired)
	case len(e.idle) >= e.o.Pool.MaxIdle:
		e.mu.Unlock()
		c.close(metrics.ClosedFull)
	default:
		e.idle = append(e.idle, c)
		e.mu.Unlock()
	}
}

// sweep closes idle connections that are too old or that the upstream has closed.
func (e *Endpoint) sweep(now time.Time) {
	var (
		closed [16]*Conn
		why    [16]metrics.CloseReason
		n      int
	)
	e.mu.Lock()
	kept := e.idle[:0]
	for _, c := range e.idle {
		if n < len(closed) {
			reason, fit := c.fit(now)
			if fit && now.Sub(c.since) > quiet && c.socket.PeerGone() {
				reason, fit = metrics.ClosedByUpstream, false
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
