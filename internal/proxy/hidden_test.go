package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// What the poller has announced once it does not announce again. These are ends that were announced to nobody.

// The end of a kept connection came just before the next request took it, and a half-closed upstream says nothing to that.
func TestAnEndBeforeTheRequestIsSeen(t *testing.T) {
	for name, text := range map[string]string{"GET": get("/"), "POST": post("/", "once")} {
		t.Run(name, func(t *testing.T) {
			halved := make(chan bool, 1)
			k := start(t, setup{upstream: script(func(c *demo.Conn) {
				for n := 0; ; n++ {
					r, err := c.ReadRequest()
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						return
					}
					if n == 1 && c.Number == 1 {
						c.WaitClosed()
						return
					}
					c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					if n == 0 && c.Number == 1 {
						_ = c.NetConn().(*net.TCPConn).CloseWrite()
						halved <- true
					}
				}
			})})
			c := k.dial()
			c.send(get("/")).answer().ok(k)
			take(k, "the upstream's end", halved)
			a := c.send(text).answer() // sooner than Take would look at a connection that idled
			if name == "GET" || a.StatusCode == 200 {
				a.ok(k) // on another connection
			} else {
				a.problem(k, fault.ResponseReset)
			}
		})
	}
}

// The caller's end came in the same moment as his last request. The sweeper looks for it, and a parked connection shows it.
func TestAnEndTogetherWithARequestIsSeen(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // nobody asks the poller between a request and the end behind it
	k := start(t, setup{timeout: `tunnel_idle = "1h"`, upstream: answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")})
	callers := make([]*caller, 16)
	for i := range callers {
		callers[i] = k.dial()
		callers[i].send(get("/")).answer().ok(k)
	}
	for _, c := range callers {
		c.send(get("/")).half()
	}
	for i, c := range callers {
		// It may also have been noticed before the answer.
		if _, err := io.ReadAll(c.r); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the connection of caller %d is still open", i)
		}
	}
}
