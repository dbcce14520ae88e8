package upstream

import (
	"crypto/tls"
	"sync/atomic"
	"time"
)

// classicalFor is how long an upstream that chose a classical group is offered nothing else.
const classicalFor = time.Hour

// groups decides which key exchanges an upstream is offered. crypto/tls makes and sends a share for ML-KEM whenever that is
// among them, which is a good part of a handshake's cost and in vain with a server that does not know it.
//
// So what a server chose from the whole offer is remembered, for classicalFor and once the handshake has proved that the
// choice was the server's own: nobody in between can talk us out of ML-KEM, and a server that speaks it always gets it,
// within that time of having learnt it.
type groups struct {
	base  time.Time
	until atomic.Int64 // nanoseconds since base; 0: the whole offer is made
}

// classical are the groups without a post-quantum part.
func classical() []tls.CurveID {
	return []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

// whole reports whether the next handshake makes the whole offer.
func (g *groups) whole(now time.Time) bool { return int64(now.Sub(g.base)) >= g.until.Load() }

// chosen notes what came of the whole offer in a handshake that is complete.
func (g *groups) chosen(id tls.CurveID, now time.Time) {
	switch id {
	case tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521:
		g.until.Store(int64(now.Sub(g.base) + classicalFor))
	}
}

// forget has the next handshake make the whole offer.
func (g *groups) forget() { g.until.Store(0) }
