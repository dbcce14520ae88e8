package proxy

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// tries is an upstream that deals with each request in a way of its own, and knows what it saw.
type tries struct {
	mu   sync.Mutex
	seen []string // method, path and body of each
	at   []time.Time
	each []func(*demo.Conn) // the last one goes for all that follow
}

func (u *tries) options() demo.UpstreamOptions {
	return script(func(c *demo.Conn) {
		for {
			r, body, err := readWhole(c)
			if err != nil {
				return
			}
			u.mu.Lock()
			deal := u.each[min(len(u.seen), len(u.each)-1)]
			u.seen = append(u.seen, r.Method+" "+r.URL.Path+" "+body)
			u.at = append(u.at, time.Now())
			u.mu.Unlock()
			deal(c)
		}
	})
}

func (u *tries) saw() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.seen...)
}

// says writes a response with a body.
func says(status int, fields ...string) func(*demo.Conn) {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d Status\r\nContent-Length: 4\r\n", status)
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	b.WriteString("\r\nbody")
	return func(c *demo.Conn) { c.WriteString(b.String()) }
}

func resets(c *demo.Conn) { _ = c.Reset() }

func mute(c *demo.Conn) { c.WaitClosed() }

func TestRetry(t *testing.T) {
	put := func(fields ...string) string {
		return strings.Replace(post("/", "whole", fields...), "POST", "PUT", 1)
	}
	const on = `retry.on = ["connect", "unsent", "reset", "502", "503", "504", "timeout"]`
	for name, c := range map[string]struct {
		settings    string
		first       func(*demo.Conn)
		request     string
		status      int // of the answer
		tries       int
		reason      string // of the retry; "": none
		connections int
	}{
		"reset, GET":             {"", resets, get("/"), 200, 2, "reset", 2},
		"reset, HEAD":            {"", resets, request("HEAD", "/"), 200, 2, "reset", 2},
		"reset, PUT":             {on, resets, put(), 502, 1, "", 1},
		"reset, POST with a key": {on, resets, post("/", "whole", "Idempotency-Key: 1"), 502, 1, "", 1},
		"reset, not asked for":   {`retry.on = ["connect"]`, resets, get("/"), 502, 1, "", 1},
		"reset, no attempts":     {"retry.attempts = 0", resets, get("/"), 502, 1, "", 1},
		"reset within the head":  {"", func(c *demo.Conn) { c.WriteString("HTTP"); resets(c) }, get("/"), 502, 1, "", 1},
		"503, not asked for":     {"", says(503), get("/"), 503, 1, "", 1},
		"503, GET":               {on, says(503), get("/"), 200, 2, "503", 1},
		"503, HEAD":              {on, func(c *demo.Conn) { c.WriteString("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\n") }, request("HEAD", "/"), 200, 2, "503", 1},
		"503 in chunks": {on, func(c *demo.Conn) {
			c.WriteString("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		}, get("/"), 200, 2, "503", 1},
		"503 whose body does not come":  {on, func(c *demo.Conn) { c.WriteString("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n") }, get("/"), 200, 2, "503", 2},
		"502, PUT":                      {on, says(502), put(), 200, 2, "502", 2},
		"504, DELETE":                   {on, says(504), request("DELETE", "/"), 200, 2, "504", 1},
		"503, POST":                     {on, says(503), post("/", "whole"), 503, 1, "", 1},
		"503, POST with a key":          {on, says(503), post("/", "whole", "idempotency-key: 1"), 200, 2, "503", 2},
		"503, POST with two keys":       {on, says(503), post("/", "whole", "Idempotency-Key: 1", "idempotency-key: 2"), 503, 1, "", 1},
		"503 that asks for much time":   {on, says(503, "Retry-After: 3600"), get("/"), 503, 1, "", 1},
		"503 that asks for a past date": {on, says(503, "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"), get("/"), 200, 2, "503", 1},
		"503 after an interim response": {on, func(c *demo.Conn) { c.WriteString("HTTP/1.1 103 Early Hints\r\n\r\n"); says(503)(c) }, get("/"), 503, 1, "", 1},
		"503 for a large body":          {on + "\nretry.max_body = \"4B\"", says(503), put(), 503, 1, "", 1},
		"503 for a body in chunks":      {on, says(503), request("PUT", "/", "Transfer-Encoding: chunked") + "5\r\nwhole\r\n0\r\n\r\n", 503, 1, "", 1},
		"500":                           {on, says(500), get("/"), 500, 1, "", 1},
		"no answer, GET":                {on + "\nretry.try_timeout = \"300ms\"", mute, get("/"), 200, 2, "timeout", 2},
		"no answer, PUT":                {on + "\nretry.try_timeout = \"300ms\"", mute, put(), 200, 2, "timeout", 2},
		"no answer, POST":               {on + "\nretry.try_timeout = \"300ms\"", mute, post("/", "whole"), 504, 1, "", 1},
		"no answer, not asked for":      {`retry.try_timeout = "300ms"`, mute, get("/"), 504, 1, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			u := &tries{each: []func(*demo.Conn){c.first, says(200)}}
			k := start(t, setup{upstream: u.options(), settings: c.settings})
			caller := k.dial()
			method, _, _ := strings.Cut(c.request, " ")
			a := caller.send(c.request).answerTo(method)
			for a.StatusCode == 103 {
				a = caller.answerTo(method)
			}
			a.is(k, c.status)
			seen := u.saw()
			if len(seen) != c.tries || seen[0] != seen[len(seen)-1] {
				t.Errorf("the upstream saw %q, want the same %d times", seen, c.tries)
			}
			if n := k.upstream.Stats().Connections; n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
			if c.reason != "" {
				if n := k.metric(fmt.Sprintf(`mtls_proxy_retries_total{reason=%q,upstream="default"}`, c.reason)); n != 1 {
					t.Errorf("no retry is counted for %s\n%s", c.reason, grep(k.scrape(), "mtls_proxy_retries"))
				}
			} else if found := grep(k.scrape(), "mtls_proxy_retries_total{"); found != "" {
				t.Errorf("retries are counted: %s", found)
			}
			// The caller's connection is as good as before.
			if method != "HEAD" && !a.Close {
				caller.send(get("/next")).answer().ok(k)
			}
		})
	}
}

func TestRetryWaitsAsLongAsRetryAfterSays(t *testing.T) {
	u := &tries{each: []func(*demo.Conn){says(503, "Retry-After: 1"), says(200)}}
	k := start(t, setup{upstream: u.options(), settings: `retry.on = ["503"]`})
	k.dial().send(get("/")).answer().ok(k)
	if d := u.at[1].Sub(u.at[0]); d < time.Second {
		t.Errorf("the second try came %v after the first", d)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-1": 0, "1.5": 0, "soon": 0, "99999999999999999999": 0,
		"Wed, 02 Jan 2030 03:04:35 GMT": 30 * time.Second, "Wed, 02 Jan 2030 03:04:00 GMT": 0,
	} {
		if got := retryAfter(now, []byte(value)); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

// What a retry costs is bounded by the number of attempts, by the request's time and by the budget.
func TestRetriesEnd(t *testing.T) {
	t.Run("attempts", func(t *testing.T) {
		u := &tries{each: []func(*demo.Conn){says(503)}}
		k := start(t, setup{upstream: u.options(), settings: "retry.on = [\"503\"]\nretry.attempts = 3\nretry.backoff = \"1ms\""})
		k.dial().send(get("/")).answer().is(k, 503) // the last one is passed on
		if n := len(u.saw()); n != 3+1 {
			t.Errorf("%d tries, want 4", n)
		}
		k.until("a record", func() bool { return len(k.records()) > 0 })
		if r := k.records(); len(r) != 1 || r[0]["retries"] != float64(3) {
			t.Errorf("records %v, want one with 3 retries", r)
		}
	})
	t.Run("timeout.request", func(t *testing.T) {
		u := &tries{each: []func(*demo.Conn){says(503, "Retry-After: 5")}}
		k := start(t, setup{upstream: u.options(), settings: `retry.on = ["503"]`, timeout: `request = "3s"`})
		k.dial().send(get("/")).answer().is(k, 503)
		if n := len(u.saw()); n != 1 {
			t.Errorf("%d tries, want 1: another one would come too late", n)
		}
	})
	t.Run("budget", func(t *testing.T) {
		u := &tries{each: []func(*demo.Conn){says(503)}}
		k := start(t, setup{upstream: u.options(), settings: "retry.on = [\"503\"]\nretry.attempts = 1\nretry.backoff = \"1ms\"\ncircuit_breaker.failure_ratio = 1\ncircuit_breaker.min_requests = 1000"})
		c := k.dial()
		for range 40 {
			c.send(get("/")).answer().is(k, 503)
		}
		// A fifth of 40 requests.
		if n := len(u.saw()); n != 40+8 {
			t.Errorf("%d tries of 40 requests, want 48", n)
		}
		if n := k.metric(`mtls_proxy_retries_denied_total{upstream="default"}`); n != 40-8 {
			t.Errorf("%v retries were denied, want 32", n)
		}
	})
}

// A try that got no answer in time says by which setting.
func TestTryTimeoutIsNamed(t *testing.T) {
	u := &tries{each: []func(*demo.Conn){mute}}
	k := start(t, setup{upstream: u.options(), settings: `retry.try_timeout = "30ms"`})
	a := k.dial().send(get("/")).answer().problem(k, fault.ResponseHeaderTimeout)
	if !strings.Contains(a.text, "retry.try_timeout") {
		t.Errorf("no word of the setting: %s", a.text)
	}
}

// fleet reloads with routes to an upstream of those addresses, in that order.
func (k *kit) fleet(settings string, addresses ...string) {
	k.Helper()
	urls := make([]string, len(addresses))
	for i, a := range addresses {
		urls[i] = strconv.Quote("https://" + a)
	}
	k.reload(fmt.Sprintf("[upstream.fleet]\nurls = [%s]\nbalance = \"first\"\n%s\n[[route]]\nupstream = \"fleet\"\n", strings.Join(urls, ", "), settings))
}

// nobody is an address at which nothing listens.
func nobody(k *kit) string {
	k.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	k.must(err)
	k.must(ln.Close())
	return ln.Addr().String()
}

// A request that found no connection has not left: any method goes to the next endpoint, also with a body that is still
// on its way.
func TestRetryOnAnotherEndpoint(t *testing.T) {
	for name, text := range map[string]string{
		"GET":    get("/"),
		"POST":   post("/", "whole"),
		"chunks": request("POST", "/", "Transfer-Encoding: chunked") + "5\r\nwhole\r\n0\r\n\r\n",
		"upload": post("/", strings.Repeat("x", 1<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			u := &tries{each: []func(*demo.Conn){says(200)}}
			k := start(t, setup{upstream: u.options()})
			k.fleet("", nobody(k), k.upstream.Addr())
			k.dial().send(text).answer().ok(k)
			if n := len(u.saw()); n != 1 {
				t.Errorf("the upstream saw %d requests", n)
			}
			if n := k.metric(`mtls_proxy_retries_total{reason="connect",upstream="fleet"}`); n != 1 {
				t.Errorf("%v retries are counted", n)
			}
		})
	}
	t.Run("without a budget", func(t *testing.T) { // as with names that lead to two addresses, of which one is used
		u := &tries{each: []func(*demo.Conn){says(200)}}
		k := start(t, setup{upstream: u.options()})
		k.fleet("retry.budget = 0\npool.max_idle = 0", nobody(k), k.upstream.Addr())
		for range 10 {
			k.dial().send(post("/", "whole")).answer().ok(k)
		}
	})
	t.Run("an address that does not answer", func(t *testing.T) {
		u := &tries{each: []func(*demo.Conn){says(200)}}
		k := start(t, setup{upstream: u.options()})
		address, _ := deaf(k)
		k.fleet(`retry.try_timeout = "300ms"`, address, k.upstream.Addr())
		k.dial().send(post("/", "whole")).answer().ok(k)
	})
	t.Run("503", func(t *testing.T) {
		first, second := &tries{each: []func(*demo.Conn){says(503, "Retry-After: 5")}}, &tries{each: []func(*demo.Conn){says(200)}}
		k := start(t, setup{upstream: first.options(), others: map[string]demo.UpstreamOptions{"other": second.options()},
			config: "[[route]]\nupstream = \"default\"\n"})
		k.fleet(`retry.on = ["503"]`, k.upstream.Addr(), k.others["other"].Addr())
		k.dial().send(get("/")).answer().ok(k) // Retry-After is about the first one
		if len(first.saw()) != 1 || len(second.saw()) != 1 {
			t.Errorf("the first saw %q, the second %q", first.saw(), second.saw())
		}
	})
}

// A body that could have to be sent again is gathered, if it is small enough; the rest of the requests is not kept
// waiting for it.
func TestRetryOfABodyThatCameInPieces(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 3<<10) // more than the buffer that reads begin with
	u := &tries{each: []func(*demo.Conn){says(503), says(200)}}
	k := start(t, setup{upstream: u.options(), settings: `retry.on = ["503"]`})
	c := k.dial().send(request("PUT", "/", "Content-Length: "+strconv.Itoa(len(large))) + large[:10])
	k.any("the body is on its way", in(phaseUpload))
	c.send(large[10:] + get("/next"))
	c.answer().ok(k)
	c.answer().ok(k)
	if seen := u.saw(); len(seen) != 3 || seen[0] != "PUT / "+large || seen[1] != seen[0] || seen[2] != "GET /next " {
		t.Errorf("the upstream saw %.100q", seen)
	}
}

func TestCallerWhoLeavesAGatheredBody(t *testing.T) {
	u := &tries{each: []func(*demo.Conn){says(503), says(200)}}
	k := start(t, setup{upstream: u.options(), settings: `retry.on = ["503"]`})
	c := k.dial().send(request("PUT", "/", "Content-Length: 100") + "some")
	k.any("the body is on its way", in(phaseUpload))
	_ = c.Close()
	k.faulted(fault.CallerGone, 499)
	if seen := u.saw(); len(seen) != 0 {
		t.Errorf("the upstream saw %q", seen)
	}
}

func TestCircuitBreaker(t *testing.T) {
	u := &tries{each: []func(*demo.Conn){says(503), says(503), says(503), says(503), says(200)}}
	k := start(t, setup{upstream: u.options(), settings: "circuit_breaker = { min_requests = 4, open_for = \"200ms\", probes = 1 }"})
	c := k.dial()
	for range 4 {
		c.send(get("/")).answer().is(k, 503)
	}
	a := c.send(get("/")).answer().problem(k, fault.CircuitBreakerOpen)
	if a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After: %q", a.Header.Get("Retry-After"))
	}
	if n := len(u.saw()); n != 4 {
		t.Errorf("the upstream saw %d requests, want the 4 before it opened", n)
	}
	if n := k.metric(`mtls_proxy_circuit_breaker_state{state="open",upstream="default"}`); n != 1 {
		t.Error("the metric does not say that it is open")
	}
	k.until("a probe goes through", func() bool { return c.send(get("/")).answer().StatusCode == 200 })
	c.send(get("/")).answer().ok(k)
}

// Callers who take their time say nothing about the upstream.
func TestSlowUploadsOpenNoCircuitBreaker(t *testing.T) {
	u := &tries{each: []func(*demo.Conn){says(200)}}
	k := start(t, setup{upstream: u.options(), settings: "circuit_breaker = { min_requests = 1 }", timeout: `request = "30ms"`})
	k.dial().send(request("POST", "/", "Content-Length: 10")+"some").answer().problem(k, fault.RequestBodyTimeout)
	if n := k.metric(`mtls_proxy_circuit_breaker_state{state="closed",upstream="default"}`); n != 1 {
		t.Error("the circuit breaker is not closed")
	}
}

// With a place free elsewhere nobody waits for the endpoint that was chosen first.
func TestFullEndpointIsPassedOver(t *testing.T) {
	first, arrived, release := holding()
	second := &tries{each: []func(*demo.Conn){says(200)}}
	k := start(t, setup{upstream: first, others: map[string]demo.UpstreamOptions{"other": second.options()}, config: "[[route]]\nupstream = \"default\"\n"})
	k.fleet("pool.max_active = 1", k.upstream.Addr(), k.others["other"].Addr())
	held := k.dial().send(get("/held"))
	take(k, "a request is held", arrived)
	k.dial().send(get("/")).answer().ok(k)
	if n := len(second.saw()); n != 1 {
		t.Errorf("the other endpoint saw %d requests", n)
	}
	close(release)
	held.answer().ok(k)
}
