package upstream

import (
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// A body behind a response that has none comes in a packet of its own, and may be later than the exchange's end.
func TestAConnectionIsLookedAtHoweverSoonItIsTaken(t *testing.T) {
	w := newWorld(t)
	late := make(chan struct{})
	w.o.Script = func(c *demo.Conn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-late
		c.WriteString("what nobody asked for")
		c.WaitClosed()
	}
	w.build(t)
	c := w.dial(t)
	get(t, c)
	now := time.Now()
	c.Keep(now, -1)
	if got := w.up.Take(now); got != c {
		t.Fatalf("Take = %p, want %p: the server has said nothing yet", got, c)
	}
	close(late)
	eventually(t, "the connection is given up", func() bool {
		c.Keep(now, -1)
		return w.up.Take(now) == nil
	})
}

func TestAReservedConnectionIsItsOwnersUntilItHasRested(t *testing.T) {
	const mine, other = 7, 8
	w := newWorld(t)
	w.build(t)
	c := w.dial(t)
	get(t, c)
	now := time.Now()
	ready := now.Add(time.Second)
	c.Reserve(mine, ready)
	c.Keep(now, -1)
	if w.up.TakeReserved(now, other) != nil || w.up.Take(now) != nil {
		t.Fatal("another caller has it at once")
	}
	if got := w.up.TakeReserved(now, mine); got != c || !c.Reserved() {
		t.Fatalf("its owner has %p, want %p, and it is still reserved", got, c)
	}
	c.Reserve(0, ready)
	c.Keep(now, -1)
	if w.up.TakeReserved(now, mine) != nil || w.up.Take(ready.Add(-1)) != nil {
		t.Fatal("a connection without an owner is taken before its time")
	}
	if got := w.up.Take(ready); got != c || c.Reserved() {
		t.Fatalf("Take = %p after its rest, want %p, for any caller", got, c)
	}
	c.Keep(ready, -1)
}

func TestReservedConnectionsAreIdleOnceTheyHaveRested(t *testing.T) {
	w := newWorld(t)
	w.options.Pool.MaxIdle = 1
	w.build(t)
	a, b := w.dial(t), w.dial(t)
	now := time.Now()
	ready := now.Add(time.Second)
	for _, c := range []*Conn{a, b} {
		get(t, c)
		c.Reserve(0, ready)
		c.Keep(now, -1)
	}
	w.up.sweep(now)
	if n := w.up.idleConns(); n != 2 {
		t.Fatalf("%d connections are kept while they rest, want 2", n)
	}
	w.up.sweep(ready)
	if n := w.up.idleConns(); n != 1 {
		t.Fatalf("%d connections are kept after that, want the 1 of pool.max_idle", n)
	}
}
