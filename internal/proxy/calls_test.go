package proxy

import (
	"runtime"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// looked is after how long idle the upstream may have said something that is TLS's own, which costs a read more.
const looked = 50 * time.Millisecond

// kept returns the connection that the pool of the default upstream hands out next, for a look at it only.
func (k *kit) kept() *upstream.Conn {
	k.Helper()
	try, f := k.store.Current().Upstreams()[0].Pick(k.Context(), time.Now(), new(upstream.Tried))
	if f != nil {
		k.Fatal(f)
	}
	defer try.End(time.Now(), upstream.Abandoned)
	var c *upstream.Conn
	k.until("a connection is kept", func() bool { // a caller has the answer a little before that
		c = try.Endpoint.Take(time.Now())
		return c != nil
	})
	c.Keep(time.Now(), -1)
	return c
}

// An exchange on kept connections costs a read and a write on either side, and none of them is in vain. The caller's
// first read may come before his first request, there is one more when the poller learns of him, and his last finds the end.
func TestSteadyStateWastesNoSystemCall(t *testing.T) {
	if raceEnabled || runtime.GOOS != "linux" {
		t.Skip("the portable path counts nothing")
	}
	const exchanges = 300
	for name, text := range map[string]string{"GET": get("/path?query", "User-Agent: test", "Accept: */*"), "POST": post("/", "small body")} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{
				timeout:  `tunnel_idle = "1h"`,
				upstream: answers("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"),
			})
			first := k.dial()
			first.send(text).answer().ok(k)
			first.half().ended()
			k.until("the first session is over", func() bool { return k.server.Stats().ActiveConnections == 0 })
			up := k.kept()
			before := up.Calls()

			c := k.dial()
			c.send(text).answer().ok(k)
			var x *session
			k.any("a session", func(s *session) bool { x = s; return true })
			looks := 0
			for range exchanges - 1 {
				begin := time.Now()
				c.send(text).answer().ok(k)
				if time.Since(begin) > looked/2 { // half of it with this exchange, half with the one before
					looks += 2
				}
			}
			c.half().ended()
			k.until("the session is over", func() bool { return k.server.Stats().ActiveConnections == 0 })

			caller := x.socket.Calls()
			if caller.Reads-caller.Vain != exchanges+1 || caller.Vain > 2 || caller.Writes != exchanges {
				t.Errorf("%d exchanges cost %+v on the caller's side, want a read and a write for each, and a read for the end", exchanges, caller)
			}
			after := up.Calls()
			upper := conn.Calls{Reads: after.Reads - before.Reads, Vain: after.Vain - before.Vain, Writes: after.Writes - before.Writes}
			if upper.Reads-upper.Vain != exchanges || upper.Vain > looks || upper.Writes != exchanges {
				t.Errorf("%d exchanges with %d looks cost %+v on the upstream's side, want a read and a write for each", exchanges, looks, upper)
			}
		})
	}
}
