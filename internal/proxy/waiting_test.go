package proxy

import (
	"io"
	"net/http"
	"runtime"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// An exchange that waits for its upstream keeps the request, and has no memory yet for what is to come: neither for the
// beginning of the response nor for the next part of it.
func TestAnExchangeThatWaitsHoldsOneSmallBuffer(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector, connections go through net.Conn, where a wait takes memory with it")
	}
	const n = 100
	for name, first := range map[string]string{"for the head": "", "for more": "data: 1\n\n"} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			k := start(t, setup{
				config: "[limits]\nmax_concurrent_requests = 1000\n[upstream.default.pool]\nmax_idle = 1000\n",
				upstream: demo.UpstreamOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if first != "" {
						_, _ = io.WriteString(w, first)
						_ = http.NewResponseController(w).Flush()
					}
					select {
					case <-release:
					case <-r.Context().Done():
					}
				})},
			})
			phase := phaseRequest
			if first != "" {
				phase = phaseStream
			}
			var callers []*caller
			for range n {
				callers = append(callers, k.dial())
			}
			wait := func(between func()) {
				for i, c := range callers {
					c.send(get("/"))
					k.stuck(i+1, in(phase))
					between()
				}
			}
			wait(func() {})
			for range n {
				release <- struct{}{}
			}
			for _, c := range callers { // that leaves as many connections on either side
				c.answer().ok(k)
			}
			before := heap()
			wait(func() { heap() }) // so that none is kept by the pool which one of them holds on to
			each := (heap() - before) / n
			if most := conn.SmallBuffer * 2; each > most {
				t.Errorf("an exchange that waits holds %d bytes, more than %d", each, most)
			}
		})
	}
}

// heap is what is in use.
func heap() int {
	runtime.GC()
	runtime.GC() // a pool keeps what it has over one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
