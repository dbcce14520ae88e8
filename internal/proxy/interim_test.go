package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

const waitFor100 = "POST /upload HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

func TestContinue(t *testing.T) {
	k := start(t, setup{})
	c := k.dial()
	for range 2 { // and the connection lives on
		c.send(waitFor100)
		if a := c.answer(); a.StatusCode != 100 {
			t.Fatalf("want 100, got %d", a.StatusCode)
		}
		c.send("hello")
		if a := c.answer().ok(k); !strings.Contains(a.text, `"bytes": 5`) {
			t.Errorf("the upstream got %s", a.text)
		}
	}
}

func TestFinalAnswerInsteadOfContinue(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		for {
			if _, err := c.ReadHead(); err != nil {
				return
			}
			c.WriteString("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		}
	})})
	c := k.dial().send(waitFor100)
	if a := c.answer().is(k, 403); a.text != "no" || !a.Close {
		t.Errorf("got %q, close %v", a.text, a.Close)
	}
	c.ended()
	k.until("the upstream's connection is closed", func() bool { return k.upstream.Stats().Open == 0 })
}

func TestFaultInsteadOfContinue(t *testing.T) {
	k := start(t, setup{config: "[[route]]\npath_prefix = \"/only\"\n"})
	c := k.dial().send(waitFor100)
	c.answer().problem(k, fault.NoRoute)
	c.ended()
}

func TestUpstreamThatIgnoresExpect(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		body := make([]byte, 5)
		if _, err := io.ReadFull(c.Reader(), body); err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%s", body)
		c.WaitClosed()
	})})
	c := k.dial().send(waitFor100)
	k.any("the upload has begun", func(x *session) bool { return x.overall.Load() > 0 })
	c.send("hello") // tired of waiting
	if a := c.answer().ok(k); a.text != "hello" {
		t.Errorf("got %q", a.text)
	}
}

func TestCallerThatDoesNotWaitForContinue(t *testing.T) {
	k := start(t, setup{})
	for range 3 {
		c := k.dial().send(waitFor100 + "hello")
		a := c.answer()
		if a.StatusCode == 100 {
			a = c.answer()
		}
		if a.ok(k); !strings.Contains(a.text, `"bytes": 5`) {
			t.Errorf("the upstream got %s", a.text)
		}
	}
}

func TestCallerThatWasToldToContinueAndDoesNot(t *testing.T) {
	k := start(t, setup{timeout: "idle = \"40ms\"\nresponse_header = \"1h\""})
	c := k.dial().send(waitFor100)
	if a := c.answer(); a.StatusCode != 100 {
		t.Fatalf("want 100, got %d", a.StatusCode)
	}
	c.answer().problem(k, fault.RequestBodyTimeout)
	c.ended()
	k.faulted(fault.RequestBodyTimeout, 408)
}

func TestEarlyHints(t *testing.T) {
	k := start(t, setup{})
	c := k.dial().send(get("/early"))
	if a := c.answer(); a.StatusCode != 103 || a.Header.Get("Link") == "" {
		t.Errorf("want 103 with its Link, got %d %v", a.StatusCode, a.Header)
	}
	c.answer().ok(k)
	// HTTP/1.0 knows no interim responses.
	c = k.dial().send("GET /early HTTP/1.0\r\n\r\n")
	c.answer().ok(k)
	c.ended()
}

// A server that reports progress may do so for long.
func TestProgressReports(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.WriteString(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 40) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			c.WaitClosed()
		}
	})})
	c := k.dial().send(get("/"))
	for range 40 {
		if a := c.answer(); a.StatusCode != 102 {
			t.Fatalf("want 102, got %d", a.StatusCode)
		}
	}
	c.answer().ok(k)
}

// Some callers read a line and an empty one.
func TestContinueIsBare(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.WriteString("HTTP/1.1 100 Go on\r\nServer: x\r\n\r\n")
			c.WaitClosed()
		}
	})})
	if head := k.dial().send(waitFor100).rawHead(); head != "HTTP/1.1 100 Continue\r\n\r\n" {
		t.Errorf("got %q", head)
	}
}

// A server that reads bodies, but never says that it will; and one that says so late.
func TestAnUpstreamThatSaysNothingToExpect(t *testing.T) {
	for name, late := range map[string]string{"never": "", "late": "HTTP/1.1 100 Continue\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{timeout: `response_header = "10s"`, upstream: script(func(c *demo.Conn) {
				for {
					r, body, err := readWhole(c)
					if err != nil {
						return
					}
					if r.Method == "GET" {
						late = ""
					}
					c.WriteString(fmt.Sprintf("%sHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", late, len(body), body))
				}
			})})
			c := k.dial().send(waitFor100)
			if a := c.answer(); a.StatusCode != 100 {
				t.Fatalf("want 100, got %d", a.StatusCode)
			}
			if a := c.send("hello").answer().ok(k); a.text != "hello" {
				t.Errorf("got %q", a.text)
			}
			c.send(get("/")).answer().ok(k) // and the connection lives on
		})
	}
}

func TestInterimFlood(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		for range http1.MaxInterim + 1 {
			if _, err := c.WriteString("HTTP/1.1 103 Early Hints\r\n\r\n"); err != nil {
				return
			}
		}
		c.WaitClosed()
	})})
	c := k.dial().send(get("/"))
	n := 0
	a := c.answer()
	for ; a.StatusCode == 103; a = c.answer() {
		n++
	}
	a.problem(k, fault.ResponseMalformed)
	if n != http1.MaxInterim {
		t.Errorf("%d interim responses came through, want %d", n, http1.MaxInterim)
	}
	k.faulted(fault.ResponseMalformed, 502)
}

// After an interim response the upstream has begun to answer: what follows is no stale connection.
func TestNoReplayAfterAnInterimResponse(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if _, err := c.ReadHead(); err != nil {
			return
		}
		c.WriteString("HTTP/1.1 103 Early Hints\r\n\r\n")
	})})
	c := k.dial()
	c.send(get("/")).answer().ok(k)
	if a := c.send(get("/")).answer(); a.StatusCode != 103 {
		t.Fatalf("want 103, got %d", a.StatusCode)
	}
	c.answer().problem(k, fault.ResponseReset)
	if n := k.upstream.Stats().Connections; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
