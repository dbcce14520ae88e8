package proxy

import "testing"

// perRecord is what crypto/tls allocates to read one record: an io.Reader of two words (readFromUntil). An exchange has
// two records, one read by the proxy and one by the upstream of the test.
const perRecord = 1

// The steady state of kept connections allocates nothing of ours. testing.AllocsPerRun counts every goroutine of the
// process, so neither the caller nor the upstream of this test allocates, either.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const response = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
	usual := get("/path?query", "User-Agent: test", "Accept: */*")
	for name, what := range map[string]struct{ text, config string }{
		"GET": {text: usual}, "POST": {text: post("/", "small body")}, "every exchange recorded": {usual, "[log]\naccess = \"all\"\npath = true\n"},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: what.config, timeout: `tunnel_idle = "1h"`, upstream: records(response)})
			c, err := k.volley(what.text)
			k.must(err)
			exchange := func() { k.must(c.exchange()) }
			for range 100 {
				exchange()
			}
			if n := testing.AllocsPerRun(500, exchange); n > 2*perRecord {
				t.Errorf("%v allocations for an exchange, want no more than the %d of crypto/tls", n, 2*perRecord)
			}
		})
	}
}
