//go:build linux

package faults

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The circuit breaker opens when nothing but failures comes back, answers in the upstream's place, and closes again.
func TestCircuitBreakerOpensAndCloses(t *testing.T) {
	s := set(t, 1, settings{"upstream.default.circuit_breaker.open_for": `"1s"`})
	e := s.endpoints[0]
	l := s.load()
	l.requests, l.every = 0, 10*time.Millisecond
	state := func(name string) func() bool {
		return func() bool { return s.proxy.metric("mtls_proxy_circuit_breaker_state", `state="`+name+`"`) == 1 }
	}
	var askedWhileOpen int
	l.play = func() {
		l.more(20)
		e.trouble.Store(resetsAfter(nothing))
		s.proxy.until("the circuit breaker is open", state("open"))
		before, _, _ := s.seen.sum()
		l.more(30) // less than it stays open for
		after, _, _ := s.seen.sum()
		askedWhileOpen = after - before
		e.heal()
		s.proxy.until("the circuit breaker is closed", state("closed"))
		l.more(20)
	}
	tally := l.run()
	s.only(tally, everything, "200", "502 response_reset", "502 connection_reset", "503 circuit_breaker_open")
	if n := tally.sum()["503 circuit_breaker_open"]; n < 20 {
		t.Errorf("%d requests were answered by the circuit breaker, want most of those that came while it was open", n)
	}
	if askedWhileOpen > 3 {
		t.Errorf("the upstream got %d requests while the circuit breaker was open", askedWhileOpen)
	}
	s.end("Overload", "an upstream that resets everything, for the circuit breaker", l)
}

// An upstream that is down and back is used again at once, however long the circuit breaker is to stay open.
func TestCircuitBreakerClosesWhenTheUpstreamIsBack(t *testing.T) {
	s := set(t, 1, settings{"upstream.default.circuit_breaker.open_for": `"1h"`})
	e := s.endpoints[0]
	l := s.load()
	l.requests = 0
	state := func(name string) func() bool {
		return func() bool { return s.proxy.metric("mtls_proxy_circuit_breaker_state", `state="`+name+`"`) == 1 }
	}
	l.play = func() {
		l.more(20)
		e.down()
		s.proxy.until("the circuit breaker is open", state("open"))
		l.more(50)
		e.up()
		s.proxy.until("the circuit breaker is closed", state("closed"))
		l.more(20)
	}
	tally := l.run()
	s.only(tally, everything, "200", "502 connection_refused", "502 connection_reset", "502 response_reset", "503 circuit_breaker_open")
	s.end("Overload", "killed, and back, with `circuit_breaker.open_for = \"1h\"`", l)
}

// At twice the load that it may carry, whoever is let in is served as usual, the rest hears so in time, and operators
// see what goes on.
func TestTwiceTheLoadItCanCarry(t *testing.T) {
	const places, took = 8, 40 * time.Millisecond // so 200 requests a second
	s := set(t, 1, settings{"limits.max_concurrent_requests": "8", "limits.queue_timeout": `"200ms"`, "upstream.default.pool.max_idle": "20"})
	s.endpoints[0].trouble.Store(delaysHead(took))
	l := s.load()
	l.callers, l.every = 200, 2500*time.Microsecond
	l.requests *= 2

	stop := make(chan struct{})
	var (
		group   sync.WaitGroup
		slowest time.Duration
		asked   int
	)
	group.Go(func() {
		for ; !closed(stop); <-time.After(20 * time.Millisecond) {
			for _, path := range []string{"/livez", "/metrics"} {
				start := time.Now()
				if _, err := s.proxy.ask(path); err != nil {
					t.Errorf("an operator asked for %s: %v", path, err)
				}
				asked++
				slowest = max(slowest, time.Since(start))
			}
		}
	})
	tally := l.run()
	close(stop)
	group.Wait()

	s.only(tally, everything, "200", "503 concurrency_limit")
	refused, served := tally.sum()["503 concurrency_limit"], tally.sum()["200"]
	if refused == 0 || served == 0 {
		t.Errorf("%d requests were served, %d refused; want some of both", served, refused)
	}
	if n := s.seen.busiest(); n > places {
		t.Errorf("the upstream had %d requests at a time, %d were allowed", n, places)
	}
	s.endpoints[0].heal()
	s.end("Overload", fmt.Sprintf("twice as many requests as `limits.max_concurrent_requests` can carry (p99 of those served %s ms; operators asked %d times and waited %s ms at most)",
		millis(percentile(tally.kept, 0.99)), asked, millis(slowest)), l)
}

// Callers that open connections and leave them there cannot hold them against others: the idle ones make room. In the
// moment of the flood itself some are turned away.
func TestFloodOfConnections(t *testing.T) {
	s := set(t, 1, settings{"limits.max_connections": "60"})
	l := s.load()
	l.callers, l.methods = 8, []string{http.MethodGet}
	l.again = true // idle connections are what makes room
	var flood crowd
	defer flood.leave()
	l.at[l.requests/4] = func() {
		for range 300 {
			flood.join(t, s.proxy.address, "")
		}
	}
	l.at[l.requests/4*3] = flood.leave
	tally := l.run()
	s.only(tally, everything, "200", "503 connection_limit")
	if n := s.proxy.metric("mtls_proxy_active_connections"); n > 60 {
		t.Errorf("%v connections are open, 60 are allowed", n)
	}
	t.Logf("%d requests found their idle connection closed", tally.anew)
	s.end("Overload", "300 idle connections, 60 allowed", l)
}

// A process that stands still for a while, as on a machine that is too busy, finds answers and the end of their time at
// the same moment. Whoever gets an answer can use his connection again, unless he is told otherwise.
func TestProxyStandsStill(t *testing.T) {
	s := set(t, 1, settings{"upstream.default.retry.try_timeout": `"100ms"`, "upstream.default.circuit_breaker.failure_ratio": "1"})
	s.endpoints[0].trouble.Store(delaysHead(20 * time.Millisecond))
	l := s.load()
	l.every = 2 * time.Millisecond
	l.requests *= 4
	for i := range 8 {
		l.at[(i+1)*l.requests/10] = func() {
			must(t, s.proxy.cmd.Process.Signal(syscall.SIGSTOP))
			<-time.After(150 * time.Millisecond)
			must(t, s.proxy.cmd.Process.Signal(syscall.SIGCONT))
		}
	}
	tally := l.run()
	s.only(tally, everything, "200", "504 response_header_timeout", "504 connection_timeout", "504 tls_handshake_timeout")
	s.endpoints[0].heal()
	s.end("Overload", "the proxy itself stands still for 150 ms, now and again", l)
}
