package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestDrain(t *testing.T) {
	o, arrived, release := holding()
	k := start(t, setup{upstream: o})
	idle, busy := k.dial(), k.dial().send(get("/held"))
	idle.send(get("/")).answer().ok(k)
	take(k, "the request", arrived)
	fresh := k.dial() // accepted just before
	k.until("it is accepted", func() bool { return k.server.Stats().ActiveConnections == 3 })
	late := k.dial()
	k.until("it is accepted", func() bool { return k.server.Stats().ActiveConnections == 4 })

	drained := make(chan error, 1)
	go func() { drained <- k.drain(patience) }()
	idle.ended()
	fresh.send(get("/"))
	if a := fresh.answer().ok(k); !a.Close {
		t.Error("no word of the close")
	}
	fresh.ended()
	late.send("GET / HTTP/1.1\r\nHo")
	k.any("half a head is there", in(phaseHead))
	late.send("st: localhost\r\n\r\n").answer().ok(k)
	close(release)
	if a := busy.answer().ok(k); !a.Close {
		t.Error("no word of the close")
	}
	busy.ended()
	if err := take(k, "the end", drained); err != nil {
		t.Errorf("Drain() = %v", err)
	}
}

func TestDrainCutsWhatLastsTooLong(t *testing.T) {
	o, arrived, _ := holding()
	k := start(t, setup{upstream: o, timeout: longTunnel + "\nrequest = \"1h\"\n"})
	waiting := k.dial().send(get("/held/1"))
	take(k, "the request", arrived)
	up := k.dial().send(request("POST", "/upload", "Content-Length: 10") + "five.")
	k.until("both are under way", func() bool { return k.active() == 2 })
	idle := k.dial()
	idle.send(get("/")).answer().ok(k)
	half := k.dial().send("GET /")
	k.any("half a head is there", in(phaseHead))

	err := k.drain(50 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "2 connections") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain() = %v, want that 2 were cut", err)
	}
	waiting.answer().problem(k, fault.Draining)
	up.answer().problem(k, fault.Draining)
	idle.ended()
	half.closed()
}

// On a busy machine a drain looks around again before a session that was cut has had a CPU.
func TestWhoWasCutSaysSoFirst(t *testing.T) {
	o, arrived, _ := holding()
	k := start(t, setup{upstream: o})
	waiting := k.dial().send(get("/held/1"))
	take(k, "the request", arrived)
	up := k.dial().send(request("POST", "/upload", "Content-Length: 10") + "five.")
	k.until("both are under way", func() bool { return k.active() == 2 })
	k.server.mu.Lock()
	for range 3 {
		k.server.cut(false)
	}
	k.server.mu.Unlock()
	waiting.answer().problem(k, fault.Draining)
	up.answer().problem(k, fault.Draining)
}

func TestDrainCutsStreamsAndTunnels(t *testing.T) {
	k := start(t, setup{timeout: "tunnel_idle = \"1h\""})
	stream, tunnel := k.dial().send(get("/sse?n=2&every=1h")), k.tunnel()
	stream.rawHead()
	k.until("both are under way", func() bool { return k.server.Stats().ActiveExchanges == 2 })
	if err := k.drain(20 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "2 connections") {
		t.Errorf("Drain() = %v, want that 2 were cut", err)
	}
	tunnel.cut()
	if b, err := stream.r.Peek(10000); err == nil || strings.Contains(string(b), "0\r\n\r\n") {
		t.Errorf("a clean end: %q, %v", b, err)
	}
	// A caller who does not read its answer does not hold the end up, either: see TestDrainIsNotHeldUpByADeafCaller.
}

func TestDrainIsNotHeldUpByADeafCaller(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		_, _ = c.ReadHead()
		c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		block := strings.Repeat("x", 1<<16)
		for {
			if _, err := c.WriteString(block); err != nil {
				return
			}
		}
	})})
	k.dial().send(get("/"))
	k.any("it is stuck", func(x *session) bool { return in(phaseStream)(x) && x.socket.WriteBlocked() })
	if err := k.drain(20 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("Drain() = %v, want that 1 was cut", err)
	}
}

// An exchange keeps the generation it began with, the next one of the connection has the new one.
func TestReloadInMidExchange(t *testing.T) {
	o, arrived, release := holding()
	k := start(t, setup{upstream: o, config: "[[route]]\nresponse_headers = { set = { \"X-Generation\" = \"1\" } }\n"})
	c := k.dial().send(get("/held"))
	take(k, "the request", arrived)
	k.reload("[[route]]\nresponse_headers = { set = { \"X-Generation\" = \"2\" } }\n")
	close(release)
	for _, want := range []string{"1", "2"} {
		a := c.answer().ok(k)
		if got := a.Header.Get("X-Generation"); got != want || a.Close {
			t.Errorf("generation %q, want %q; close %v", got, want, a.Close)
		}
		if want == "1" {
			c.send(get("/"))
		}
	}
}

func TestListenerThatLeft(t *testing.T) {
	o, arrived, release := holding()
	both := "[listener.http]\n[listener.extra]\naddress = \"127.0.0.1:1\"\n"
	k := start(t, setup{upstream: o, config: both + "[reload]\ndrain_timeout = \"300ms\"\n"})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	k.must(err)
	stop := k.serve("extra", ln)
	extra := func() *caller { return k.connect("tcp", ln.Addr().String()) }
	idle, busy, long := extra(), extra().send(get("/held")), extra().send(get("/sse?n=2&every=1h"))
	idle.send(get("/")).answer().ok(k)
	take(k, "the request", arrived)
	fresh := extra()
	k.until("all are accepted", func() bool { return k.server.Stats().Listeners["extra"] == 4 })

	k.reload("[listener.http]\n[reload]\ndrain_timeout = \"300ms\"\n")
	between := extra() // accepted after the new generation was published, before the listener was closed
	between.send(get("/")).answer().ok(k)
	stop()
	fresh.send(get("/")).answer().ok(k)
	fresh.ended()
	idle.ended()
	close(release)
	if a := busy.answer().ok(k); !a.Close {
		t.Error("no word of the close")
	}
	busy.ended()
	_ = long
	k.dial().send(get("/")).answer().ok(k)
}

func TestListenerThatLeftIsCut(t *testing.T) {
	both := "[listener.http]\n[listener.extra]\naddress = \"127.0.0.1:1\"\n"
	k := start(t, setup{upstream: silent(), config: both})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	k.must(err)
	stop := k.serve("extra", ln)
	c := k.connect("tcp", ln.Addr().String()).send(get("/"))
	k.until("it is under way", func() bool { return k.active() == 1 })
	k.reload("[listener.http]\n[reload]\ndrain_timeout = \"50ms\"\n")
	stop()
	c.answer().problem(k, fault.Draining)
	c.ended()
	k.faulted(fault.Draining, 503)
}

func TestRetiredUpstreamIsCut(t *testing.T) {
	k := start(t, setup{})
	stream := k.dial().send(get("/sse?n=2&every=1h"))
	stream.rawHead()
	k.setup.settings = "via = true\nserver_name = \"127.0.0.1\"\nmin_tls_version = \"1.3\"" // another upstream by the same name
	k.reload("[reload]\ndrain_timeout = \"50ms\"\n")
	k.dial().send(get("/")).answer().ok(k)
	if b, err := stream.r.Peek(10000); err == nil || strings.Contains(string(b), "0\r\n\r\n") {
		t.Errorf("a clean end: %q, %v", b, err)
	}
	k.faulted(fault.Draining, 200)
}

func TestReloadsUnderLoad(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_concurrent_requests = 1000\n"})
	stop, done := make(chan struct{}), make(chan int)
	for range 4 {
		go func() {
			n := 0
			defer func() { done <- n }()
			c := k.dial()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if n%2 == 0 {
					c.send(get("/"))
				} else {
					c.send(request("POST", "/", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n")
				}
				if a := c.answer(); a.StatusCode != 200 || a.Close {
					t.Errorf("request %d: %d, close %v", n, a.StatusCode, a.Close)
					return
				}
				n++
			}
		}()
	}
	for i := range 10 {
		k.setup.settings = fmt.Sprintf("via = %v\nmin_tls_version = \"1.%d\"", i%2 == 0, 2+i%2)
		k.reload(fmt.Sprintf("[limits]\nmax_concurrent_requests = %d\n", 1000+i))
	}
	close(stop)
	for range 4 {
		<-done
	}
}

// A listener that leaves the configuration, or a service that stops, does not reset the connections in its backlog.
func TestWhoWaitsToBeAcceptedIsServedBeforeTheSocketCloses(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			k := start(t, setup{})
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(k.dir, "closing")
			}
			ln, err := net.Listen(network, address)
			k.must(err)
			var callers []*caller
			for range 20 {
				callers = append(callers, k.connect(network, ln.Addr().String()).send(get("/")))
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(ErrClosing)
			if err := k.server.Serve(ctx, "http", ln); err != nil {
				t.Errorf("Serve() = %v", err)
			}
			_ = ln.Close()
			for _, c := range callers {
				c.answer().ok(k)
			}
		})
	}
}
