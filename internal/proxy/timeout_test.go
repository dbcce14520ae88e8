package proxy

import (
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// silent reads what comes and says nothing.
func silent() demo.UpstreamOptions { return script((*demo.Conn).WaitClosed) }

func TestTimeoutsOfTheUpstream(t *testing.T) {
	whole := map[string]string{
		"GET":           get("/"),
		"streamed POST": request("POST", "/", "Transfer-Encoding: chunked") + "1\r\nx\r\n0\r\n\r\n",
	}
	for name, c := range map[string]struct {
		timeout string
		token   fault.Token
	}{
		"response_header": {`response_header = "40ms"`, fault.ResponseHeaderTimeout},
		"request":         {`request = "40ms"`, fault.RequestTimeout},
	} {
		for what, text := range whole {
			t.Run(name+" "+what, func(t *testing.T) {
				k := start(t, setup{timeout: c.timeout, upstream: silent()})
				caller := k.dial().send(text)
				if a := caller.answer().problem(k, c.token); a.Header.Get("Retry-After") != "" {
					t.Error("Retry-After")
				}
				caller.ended()
				k.faulted(c.token, 504)
				k.until("the upstream's connection is closed", func() bool { return k.upstream.Stats().Open == 0 })
				if n := k.metric(`mtls_proxy_responses_total{source="proxy",upstream="default"}`); n != 1 {
					t.Errorf("%v answers of ours counted\n%s", n, grep(k.scrape(), "responses_total"))
				}
			})
		}
	}
}

// A connection that was kept has its time to answer as well.
func TestResponseHeaderTimeoutOnAKeptConnection(t *testing.T) {
	k := start(t, setup{timeout: `response_header = "40ms"`, upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			c.WaitClosed()
		}
	})})
	c := k.dial()
	c.send(get("/")).answer().ok(k)
	c.send(get("/")).answer().problem(k, fault.ResponseHeaderTimeout)
	if n := k.upstream.Stats().Connections; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestResponseBodyTimeout(t *testing.T) {
	for name, head := range map[string]string{
		"length":     "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive.",
		"chunked":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive.\r\n",
		"to the end": "HTTP/1.1 200 OK\r\n\r\nfive.",
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{timeout: `idle = "40ms"`, upstream: once(head, (*demo.Conn).WaitClosed)})
			if a := k.dial().send(get("/")).answer(); a.err == nil || a.text != "five." {
				t.Errorf("got %q, %v", a.text, a.err)
			}
			k.faulted(fault.ResponseBodyTimeout, 200)
		})
	}
}

func TestRequestBodyTimeout(t *testing.T) {
	for name, text := range map[string]string{
		"length":  request("POST", "/", "Content-Length: 10") + "five.",
		"chunked": request("POST", "/", "Transfer-Encoding: chunked") + "9\r\nfive.",
		"nothing": request("POST", "/", "Content-Length: 10"),
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{timeout: `idle = "40ms"`, upstream: silent()})
			c := k.dial().send(text)
			c.answer().problem(k, fault.RequestBodyTimeout)
			c.ended()
			k.faulted(fault.RequestBodyTimeout, 408)
			k.until("the upstream's connection is closed", func() bool { return k.upstream.Stats().Open == 0 })
		})
	}
}

func TestHeaderTimeout(t *testing.T) {
	for name, text := range map[string]string{
		"in the line":          "GET / HT",
		"in the fields":        "GET / HTTP/1.1\r\nHost: loc",
		"behind a request":     get("/") + "GET",
		"one byte":             "G",
		"more than one buffer": "GET / HTTP/1.1\r\nHost: localhost\r\nA: " + strings.Repeat("a", 40_000),
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: "[limits]\nheader_timeout = \"40ms\"\n"})
			c := k.dial().send(text)
			if name == "behind a request" {
				c.answer().ok(k)
			}
			if a := c.answer().problem(k, fault.RequestHeaderTimeout); !a.Close {
				t.Error("no word of the close")
			}
			c.half().ended()
			k.faulted(fault.RequestHeaderTimeout, 408)
		})
	}
}

func TestIdleTimeout(t *testing.T) {
	k := start(t, setup{config: "[limits]\nidle_timeout = \"40ms\"\n"})
	fresh, used := k.dial(), k.dial()
	used.send(get("/")).answer().ok(k)
	fresh.ended()
	used.ended()
	if list := k.records(); len(list) != 0 {
		t.Errorf("records %v", list)
	}
}

func TestPoolForgetsWhatTheUpstreamClosed(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})})
	c := k.dial()
	for range 3 {
		c.send(post("/", "x")).answer().ok(k)
		k.until("the pool is empty", func() bool { return k.idle() == 0 && k.active() == 0 })
	}
}

// The empty line that some callers put behind a body begins no request, and nobody has to answer it.
func TestEmptyLineBehindARequest(t *testing.T) {
	k := start(t, setup{config: "[limits]\nidle_timeout = \"40ms\"\nheader_timeout = \"1h\"\n"})
	c := k.dial().send(post("/upload", "hello") + "\r\n")
	c.answer().ok(k)
	c.ended()
	c = k.dial().send("\r")
	c.send("\n" + get("/") + "\r")
	c.answer().ok(k)
	c.send("\n" + get("/"))
	c.answer().ok(k)
}
