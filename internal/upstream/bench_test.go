package upstream

import (
	"context"
	"crypto/tls"
	"runtime"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// benchWorld is an Upstream whose server answers each record with answer.
func benchWorld(b *testing.B, configure func(*tls.Config)) *world {
	b.Helper()
	w := newWorld(b)
	w.options.Pool.MaxIdle = 256
	w.o.Configure = configure
	w.o.Script = func(c *demo.Conn) {
		in, out := make([]byte, 4096), []byte(answer)
		for {
			if _, err := c.Conn.Read(in); err != nil {
				return
			}
			if _, err := c.Conn.Write(out); err != nil {
				return
			}
		}
	}
	return w.build(b)
}

// BenchmarkPool is what an exchange has to do with the pool, and nothing else: a look at the connection is not among it.
func BenchmarkPool(b *testing.B) {
	w := benchWorld(b, nil)
	w.dial(b).Keep(time.Now(), -1)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		w.up.Take(now).Keep(now, -1)
	}
}

// BenchmarkPoolParallel is the same on all CPUs at once, with a connection for each: as hard as the pool's lock can be hit.
func BenchmarkPoolParallel(b *testing.B) {
	w := benchWorld(b, nil)
	conns := make([]*Conn, runtime.GOMAXPROCS(0))
	for i := range conns {
		conns[i] = w.dial(b)
	}
	for _, c := range conns {
		c.Keep(time.Now(), -1)
	}
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.up.Take(now).Keep(now, -1)
		}
	})
}

// BenchmarkRoundTrip is a small request and its response on a kept connection, without a caller.
func BenchmarkRoundTrip(b *testing.B) {
	w := benchWorld(b, nil)
	request, in := []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), make([]byte, 4096)
	w.dial(b).Keep(time.Now(), -1)
	b.ReportAllocs()
	for b.Loop() {
		now := time.Now()
		c := w.up.Take(now)
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(in); err != nil {
			b.Fatal(err)
		}
		c.Keep(now, -1)
	}
}

// BenchmarkDial is a connection with its handshake, both sides of it, up to where the first request could leave. A server
// that issues tickets is asked one thing, so that they arrive.
func BenchmarkDial(b *testing.B) {
	request, in := []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), make([]byte, 4096)
	for name, configure := range map[string]func(*tls.Config){
		"full":      func(c *tls.Config) { c.SessionTicketsDisabled = true },
		"resumed":   nil,
		"classical": func(c *tls.Config) { c.SessionTicketsDisabled, c.CurvePreferences = true, classical() },
	} {
		b.Run(name, func(b *testing.B) {
			w := benchWorld(b, configure)
			dial := func() *Conn {
				c, err := w.up.Dial(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(in); err != nil {
					b.Fatal(err)
				}
				return c
			}
			dial().Close(metrics.ClosedByResponse) // from now on there is a session to resume, or a choice to remember
			b.ReportAllocs()
			for b.Loop() {
				c := dial()
				if c.resumed != (name == "resumed") {
					b.Fatalf("resumed = %v", c.resumed)
				}
				c.Close(metrics.ClosedByResponse)
			}
		})
	}
}
