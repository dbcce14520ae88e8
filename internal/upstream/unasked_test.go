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
