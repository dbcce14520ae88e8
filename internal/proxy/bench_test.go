package proxy

import (
	"runtime"
	"strings"
	"sync"
	"testing"
)

// What an exchange on kept connections costs, with the caller, the upstream and all of TLS in the same process: most of
// it is the kernel's work, and only about half of it ours. internal/bench/compare measures the proxy alone.

const benchResponse = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1024\r\n\r\n"

var benchRequests = []struct{ name, text string }{
	{"GET", get("/v1/accounts?from=2026-01-01", "User-Agent: bench", "Accept: */*")},
	{"POST", post("/v1/accounts", strings.Repeat("x", 512), "User-Agent: bench", "Content-Type: application/octet-stream")},
}

func benchKit(b *testing.B) *kit {
	b.Helper()
	return start(b, setup{
		settings: "[upstream.default.pool]\nmax_idle = 256",
		timeout:  `tunnel_idle = "1h"`,
		upstream: records(benchResponse + strings.Repeat("y", 1024)),
	})
}

func BenchmarkExchange(b *testing.B) {
	for _, r := range benchRequests {
		b.Run(r.name, func(b *testing.B) {
			k := benchKit(b)
			c, err := k.volley(r.text)
			k.must(err)
			b.ReportAllocs()
			for b.Loop() {
				k.must(c.exchange())
			}
		})
	}
}

// callersPerCPU keeps every CPU busy. More would not change what an exchange costs.
const callersPerCPU = 16

func BenchmarkExchangeParallel(b *testing.B) {
	for _, r := range benchRequests {
		b.Run(r.name, func(b *testing.B) {
			k := benchKit(b)
			callers := make(chan *volley, callersPerCPU*runtime.GOMAXPROCS(0))
			for range cap(callers) {
				c, err := k.volley(r.text)
				k.must(err)
				callers <- c
			}
			// Each has gone its way once; now that all do so at once, as many connections to the upstream are made as it takes.
			var all sync.WaitGroup
			for range cap(callers) {
				all.Go(func() {
					c := <-callers
					for range 10 {
						if err := c.exchange(); err != nil {
							b.Error(err)
						}
					}
					callers <- c
				})
			}
			all.Wait()
			b.ReportAllocs()
			b.SetParallelism(callersPerCPU)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				c := <-callers
				for pb.Next() {
					if err := c.exchange(); err != nil {
						b.Error(err)
						return
					}
				}
				callers <- c
			})
		})
	}
}
