package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestWhoseFaultTheEndOfAnUploadIs(t *testing.T) {
	for name, c := range map[string]struct {
		end    fault.Token
		silent time.Duration
		want   fault.Token
	}{
		"reset while the caller is silent":              {fault.ResponseReset, time.Second, fault.RequestBodyTimeout},
		"truncated while the caller is silent":          {fault.ResponseTruncated, time.Second, fault.RequestBodyTimeout},
		"an alert while the caller is silent":           {fault.TLSAlert, time.Second, fault.RequestBodyTimeout},
		"reset between two parts of the body":           {fault.ResponseReset, time.Millisecond, fault.ResponseReset},
		"reset while the upstream does not take more":   {fault.ResponseReset, 0, fault.ResponseReset},
		"time is over while the body still comes":       {fault.RequestTimeout, time.Millisecond, fault.RequestBodyTimeout},
		"time is over while the upstream takes nothing": {fault.RequestTimeout, 0, fault.RequestTimeout},
		"both pause":     {fault.ResponseBodyTimeout, time.Second, fault.RequestBodyTimeout},
		"nonsense":       {fault.ResponseMalformed, time.Second, fault.ResponseMalformed},
		"our own reason": {fault.Draining, time.Second, fault.Draining},
	} {
		t.Run(name, func(t *testing.T) {
			if got := attribute(fault.New(c.end, nil), c.silent); got.Token != c.want {
				t.Errorf("attribute(%s, %v) = %s, want %s", c.end, c.silent, got.Token, c.want)
			}
		})
	}
}

// touchy is a circuit breaker that one failure opens.
const touchy = "circuit_breaker = { min_requests = 1 }"

func (k *kit) breakerClosed() {
	k.Helper()
	if n := k.metric(`mtls_proxy_circuit_breaker_state{state="closed",upstream="default"}`); n != 1 {
		k.Error("the circuit breaker is not closed")
	}
}

// A server that does not wait for ever for a body is right.
func TestACallerThatStopsInItsBodyOpensNoCircuitBreaker(t *testing.T) {
	for name, end := range map[string]func(*demo.Conn){
		"end":             func(c *demo.Conn) { _ = c.Close() },
		"no close_notify": func(c *demo.Conn) { _ = c.Truncate() },
		"reset":           func(c *demo.Conn) { _ = c.Reset() },
	} {
		for part, text := range map[string]string{
			"length": request("POST", "/", "Content-Length: 10") + "abc",
			"chunks": request("POST", "/", "Transfer-Encoding: chunked") + "5\r\nfive.\r\n",
		} {
			t.Run(name+" "+part, func(t *testing.T) {
				k := start(t, setup{settings: touchy, upstream: script(func(c *demo.Conn) {
					if _, err := c.ReadHead(); err == nil {
						c.Wait(3 * silentFor)
						end(c)
					}
				})})
				k.dial().send(text).answer().problem(k, fault.RequestBodyTimeout)
				k.breakerClosed()
			})
		}
	}
	t.Run("in the middle of the response", func(t *testing.T) {
		k := start(t, setup{settings: touchy, upstream: script(func(c *demo.Conn) {
			if _, err := c.ReadHead(); err == nil {
				c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive.")
				c.Wait(3 * silentFor)
				_ = c.Truncate()
			}
		})})
		c := k.dial().send(request("POST", "/", "Content-Length: 10") + "abc")
		_, err := io.ReadAll(c.r)
		if err == nil {
			t.Error("a clean end")
		}
		k.faulted(fault.RequestBodyTimeout, 200)
		k.breakerClosed()
	})
	t.Run("an answer of a server in trouble", func(t *testing.T) {
		k := start(t, setup{settings: touchy, upstream: once("HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n", (*demo.Conn).WaitClosed)})
		k.dial().send(request("POST", "/", "Content-Length: 10")+"abc").answer().is(k, 504)
		k.breakerClosed()
	})
}

// The upstream's part of a body that took nearly all the time was short.
func TestABodyThatTakesAllTheTimeOpensNoCircuitBreaker(t *testing.T) {
	k := start(t, setup{settings: touchy, timeout: `request = "400ms"`, upstream: script(func(c *demo.Conn) {
		_, _, _ = readWhole(c)
		c.WaitClosed()
	})})
	c := k.dial().send(request("POST", "/", "Content-Length: 10") + "five.")
	k.any("the body is on its way", in(phaseUpload))
	begin := k.server.clock.Load()
	k.until("most of the time is over", func() bool { return k.server.clock.Load()-begin > int64(250*time.Millisecond) })
	c.send("five.").answer().problem(k, fault.RequestTimeout)
	k.breakerClosed()
}

func TestWhatEndsATunnelOpensNoCircuitBreaker(t *testing.T) {
	for name, c := range map[string]struct {
		upstream func(*demo.Conn) // after the 101
		caller   func(*caller)
	}{
		"the caller closes, the upstream without close_notify": {
			func(c *demo.Conn) { c.WaitClosed(); _ = c.Truncate() },
			func(c *caller) { _ = c.Close() },
		},
		"the caller closes, the upstream resets": {
			func(c *demo.Conn) { c.WaitClosed(); _ = c.Reset() },
			func(c *caller) { _ = c.Close() },
		},
		"the caller asks for the end, the upstream closes without close_notify": {
			func(c *demo.Conn) { _, _ = c.Reader().ReadByte(); _ = c.Truncate() },
			func(c *caller) { c.send("x") },
		},
		"nothing passes": {(*demo.Conn).WaitClosed, func(*caller) {}},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{settings: touchy, timeout: `tunnel_idle = "300ms"`, upstream: once(switching, c.upstream)})
			caller := k.tunnel()
			c.caller(caller)
			k.until("the exchange is over", func() bool {
				return k.metric(`mtls_proxy_response_status_codes_total{code="101",upstream="default"}`) == 1
			})
			k.breakerClosed()
		})
	}
}

// A caller that has half-closed needs no close_notify. If it still reads, it sees a reset.
func TestTunnelHalfClosedByTheCaller(t *testing.T) {
	k := start(t, setup{timeout: longTunnel, upstream: once(switching, func(c *demo.Conn) {
		c.WaitClosed()
		c.WriteString("part")
		_ = c.Truncate()
	})})
	c := k.tunnel().half()
	b, err := io.ReadAll(c.r)
	if string(b) != "part" || err == nil {
		t.Errorf("the caller got %q and %v", b, err)
	}
	k.until("the exchange is over", func() bool {
		return k.metric(`mtls_proxy_response_status_codes_total{code="101",upstream="default"}`) == 1
	})
	if list := k.records(); len(list) != 0 {
		t.Errorf("records: %v", list)
	}
}

// Simple programs say by a half-close that their request is over, and read then.
func TestAHalfClosedCallerIsAnswered(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for what, text := range map[string]string{
			"GET":    get("/"),
			"POST":   post("/", "whole"),
			"chunks": request("POST", "/", "Transfer-Encoding: chunked") + "5\r\nfive.\r\n0\r\n\r\n",
		} {
			t.Run(network+" "+what, func(t *testing.T) {
				k := start(t, setup{upstream: script(func(c *demo.Conn) {
					if _, _, err := readWhole(c); err == nil {
						c.Wait(2 * sweepMost) // it is looked at a few times meanwhile
						c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						c.WaitClosed()
					}
				})})
				address := k.address
				if network == "unix" {
					address = k.unix()
				}
				c := k.connect(network, address).send(text).half()
				if a := c.answer().ok(k); a.text != "ok" {
					t.Errorf("got %q", a.text)
				}
				c.ended()
			})
		}
	}
}

// As when the service was down: callers connect, which systemd's socket permits, ask, and give up before they are accepted.
func TestNothingIsDoneForACallerThatGaveUp(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for how, leave := range map[string]func(*caller){
			"close": func(c *caller) { _ = c.Close() },
			"reset": func(c *caller) {
				if tcp, ok := c.Conn.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}
				_ = c.Close()
			},
		} {
			for what, text := range map[string]string{
				"GET": get("/"), "POST": post("/pay", "whole"), "chunks": request("POST", "/", "Transfer-Encoding: chunked") + "5\r\nfive.\r\n0\r\n\r\n",
			} {
				t.Run(strings.Join([]string{network, how, what}, " "), func(t *testing.T) {
					u := &tries{each: []func(*demo.Conn){says(200)}}
					k := start(t, setup{upstream: u.options()})
					address := "127.0.0.1:0"
					if network == "unix" {
						address = k.dir + "/late"
					}
					ln, err := net.Listen(network, address)
					k.must(err)
					for range 3 {
						leave(k.connect(network, ln.Addr().String()).send(text))
					}
					k.serve("http", ln)
					k.until("all are dealt with", func() bool {
						return k.metric(`mtls_proxy_connections_total{listener="http"}`) == 3 && k.server.Stats().ActiveConnections == 0
					})
					if seen := u.saw(); len(seen) != 0 {
						t.Errorf("the upstream saw %q", seen)
					}
				})
			}
		}
	}
}

// Nor for one that gave up while it waited for its turn.
func TestNothingIsDoneForACallerThatGaveUpInTheQueue(t *testing.T) {
	o, arrived, release := holding()
	k := start(t, setup{upstream: o, config: "[limits]\nmax_concurrent_requests = 1\nqueue_timeout = \"10s\"\n", timeout: `tunnel_idle = "1h"`})
	first := k.dial().send(get("/held/1"))
	take(k, "the request", arrived)
	second := k.dial().send(post("/pay", "whole"))
	k.until("it waits", func() bool { return k.server.Stats().ActiveExchanges == 2 })
	_ = second.Close()
	close(release)
	first.answer().ok(k)
	k.faulted(fault.CallerGone, 499)
	if n := k.upstream.Stats().Requests; n != 1 {
		t.Errorf("the upstream saw %d requests, want the first", n)
	}
}
