package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// once answers the first request of a connection with text and ends it in the given way.
func once(text string, end func(*demo.Conn)) demo.UpstreamOptions {
	return script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.WriteString(text)
			end(c)
		}
	})
}

func TestUpstreamGoneInMidBody(t *testing.T) {
	for name, head := range map[string]string{
		"length":     "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive.",
		"chunked":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive.\r\n",
		"half chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nfive.",
		"to the end": "HTTP/1.1 200 OK\r\n\r\nfive.",
	} {
		for how, end := range map[string]func(*demo.Conn){
			"FIN":          func(c *demo.Conn) { _ = c.Truncate() },
			"reset":        func(c *demo.Conn) { _ = c.Reset() },
			"close_notify": func(*demo.Conn) {},
		} {
			if how == "close_notify" && name == "to the end" {
				continue // that is the end
			}
			for _, version := range []string{"1.1", "1.0"} {
				t.Run(name+" "+how+" "+version, func(t *testing.T) {
					k := start(t, setup{upstream: once(head, end)})
					c := k.dial().send("GET / HTTP/" + version + "\r\nHost: localhost\r\n\r\n")
					b, err := io.ReadAll(c.r)
					if err == nil {
						t.Errorf("a clean end after %q", b)
					}
					k.faulted(fault.ResponseTruncated, 200)
				})
			}
		}
	}
}

// A Unix socket knows no reset, but the framing tells.
func TestUpstreamGoneInMidBodyOnAUnixSocket(t *testing.T) {
	for name, head := range map[string]string{
		"length":     "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive.",
		"to the end": "HTTP/1.1 200 OK\r\n\r\nfive.",
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: once(head, func(c *demo.Conn) { _ = c.Truncate() })})
			if a := k.connect("unix", k.unix()).send(get("/")).answer(); a.err == nil {
				t.Errorf("a clean end after %q", a.text)
			}
			k.faulted(fault.ResponseTruncated, 200)
		})
	}
}

// Bad chunks of the upstream cut the caller off as well: what came is a part.
func TestBadChunksOfTheUpstream(t *testing.T) {
	for name, body := range map[string]string{
		"no size":      "5\r\nfive.\r\nxyz\r\n",
		"huge size":    "5\r\nfive.\r\n10000000000000000\r\n",
		"no end":       "5\r\nfive.no",
		"bare LF":      "5\nfive.\r\n",
		"bad trailers": "5\r\nfive.\r\n0\r\nno colon\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+body, (*demo.Conn).WaitClosed)})
			if a := k.dial().send(get("/")).answer(); a.err == nil {
				t.Errorf("a clean end after %q", a.text)
			}
			k.faulted(fault.ResponseMalformed, 200)
		})
	}
}

func TestBadResponses(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		token fault.Token
	}{
		"no HTTP":          {"SSH-2.0-OpenSSH\r\n", fault.ResponseMalformed},
		"HTTP/2":           {"HTTP/2 200 OK\r\n\r\n", fault.ResponseMalformed},
		"two lengths":      {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", fault.ResponseMalformed},
		"length, chunked":  {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fault.ResponseMalformed},
		"unknown coding":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", fault.ResponseMalformed},
		"bare LF":          {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", fault.ResponseMalformed},
		"fold":             {"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", fault.ResponseMalformed},
		"NUL":              {"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n", fault.ResponseMalformed},
		"large head":       {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 70<<10), fault.ResponseHeaderTooLarge},
		"100 with a body":  {"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello", fault.ResponseMalformed},
		"many fields":      {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 3000) + "\r\n", fault.ResponseHeaderTooLarge},
		"a body too early": {"hello", fault.ResponseMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: once(c.text, (*demo.Conn).WaitClosed)})
			caller := k.dial()
			caller.send(get("/")).answer().problem(k, c.token)
			k.faulted(c.token, 502)
			k.until("the upstream's connection is closed", func() bool { return k.upstream.Stats().Open == 0 })
			caller.send(get("/")).answer().problem(k, c.token) // the caller's lives on
		})
	}
}

func TestUpstreamGoneBeforeTheResponse(t *testing.T) {
	for how, end := range map[string]func(*demo.Conn){
		"FIN":          func(c *demo.Conn) { _ = c.Truncate() },
		"reset":        func(c *demo.Conn) { _ = c.Reset() },
		"close_notify": func(*demo.Conn) {},
	} {
		for _, begun := range []string{"", "HTTP/1.1 20"} {
			t.Run(how+begun, func(t *testing.T) {
				k := start(t, setup{upstream: once(begun, end), settings: "retry.attempts = 0"})
				k.dial().send(get("/")).answer().problem(k, fault.ResponseReset)
				k.faulted(fault.ResponseReset, 502)
				if n := k.upstream.Stats().Connections; n != 1 {
					t.Errorf("%d connections, want 1", n)
				}
			})
		}
	}
}

// stale answers the first request of its first connection and drops the connection when the second one is there.
func stale() demo.UpstreamOptions {
	return script(func(c *demo.Conn) {
		for n := 1; ; n++ {
			_, body, err := readWhole(c)
			if err != nil {
				return
			}
			if c.Number == 1 && n == 2 {
				_ = c.Truncate()
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
}

func TestReplayOnAStaleConnection(t *testing.T) {
	for name, text := range map[string]string{
		"GET":           get("/"),
		"GET with body": strings.Replace(post("/", "whole"), "POST", "GET", 1),
		"OPTIONS":       request("OPTIONS", "/"),
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: stale()})
			c := k.dial()
			c.send(get("/")).answer().ok(k)
			a := c.send(text).answer().ok(k)
			if want := strings.Repeat("whole", strings.Count(text, "whole")); a.text != want {
				t.Errorf("the second try carried %q, want %q", a.text, want)
			}
			if n := k.upstream.Stats().Connections; n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
			if list := k.records(); len(list) != 0 {
				t.Errorf("records %v", list)
			}
		})
	}
}

func TestNoReplay(t *testing.T) {
	for name, parts := range map[string][2]string{
		"POST":                          {post("/", "body")},
		"PUT":                           {strings.Replace(post("/", "whole"), "POST", "PUT", 1)},
		"DELETE":                        {request("DELETE", "/")},
		"PUT whose body was streamed":   {"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nfi", "ve."},
		"PUT in chunks":                 {request("PUT", "/", "Transfer-Encoding: chunked") + "5\r\nfive.\r\n0\r\n\r\n"},
		"a method that nobody knows of": {request("FROB", "/")},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: stale()})
			c := k.dial()
			c.send(get("/")).answer().ok(k)
			c.send(parts[0])
			if parts[1] != "" {
				k.any("the upload has begun", in(phaseUpload))
				c.send(parts[1])
			}
			c.answer().problem(k, fault.ResponseReset)
			if n := k.upstream.Stats().Connections; n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// Bytes that nobody asked for end the connection, and are never an answer.
func TestUnsolicitedBytes(t *testing.T) {
	const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
	for name, c := range map[string]struct{ method, text string }{
		"after length":  {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody" + forged},
		"after chunks":  {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n" + forged},
		"after HEAD":    {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\n" + forged},
		"after 204":     {"GET", "HTTP/1.1 204 No Content\r\n\r\n" + forged},
		"204 with body": {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 49\r\n\r\n" + forged},
		"after 304":     {"GET", "HTTP/1.1 304 Not Modified\r\n\r\n" + forged},
		"one byte":      {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody\n"},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: script(func(u *demo.Conn) {
				if _, err := u.ReadHead(); err == nil {
					u.WriteString(c.text) // one record
					u.WaitClosed()
				}
			})})
			caller := k.dial()
			for i := range 3 {
				if a := caller.send(request(c.method, "/")).answerTo(c.method); a.err != nil || strings.Contains(a.text, "forged") {
					t.Fatalf("answer %d: %q, %v", i, a.text, a.err)
				}
			}
			if n := k.upstream.Stats().Connections; n != 3 {
				t.Errorf("%d connections for 3 requests", n)
			}
		})
	}
}

// An unsolicited response that fills the buffer to its last byte leaves no room to notice more.
func TestUnsolicitedBytesBeyondTheBuffer(t *testing.T) {
	const room, part = 17 << 10, 3000
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		for {
			if _, err := c.ReadHead(); err != nil {
				return
			}
			head := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Pad: %s\r\nContent-Length: 4\r\n\r\n", strings.Repeat("p", room-100))
			head = strings.Replace(head, "X-Pad: ", "X-Pad: "+strings.Repeat("p", room-4-len(head)), 1)
			c.WriteString(head[:part]) // a record of its own: less than a record's room is left behind it
			c.WriteString(head[part:] + "bodyHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
		}
	})})
	c := k.dial()
	for range 3 {
		if a := c.send(get("/")).answer().ok(k); a.text != "body" {
			t.Fatalf("got %q", a.text)
		}
	}
}

func TestConnectionsWithAuthenticationAreNotShared(t *testing.T) {
	for name, c := range map[string]struct{ request, response string }{
		"NTLM asked for":        {get("/"), "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"},
		"Negotiate asked for":   {get("/"), "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Negotiate abc\r\nContent-Length: 0\r\n\r\n"},
		"NTLM in the request":   {get("/", "Authorization: NTLM TlRM"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"Connection: close":     {get("/"), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		"HTTP/1.0 upstream":     {get("/"), "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"Negotiate the request": {get("/", "Authorization: negotiate abc"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: answers(c.response)})
			caller := k.dial()
			for range 2 {
				caller.send(c.request).answer()
			}
			if n := k.upstream.Stats().Connections; n != 2 {
				t.Errorf("%d connections for 2 requests", n)
			}
		})
	}
}

// An answer that comes before the request's body was sent is delivered whole.
func TestEarlyResponse(t *testing.T) {
	body := strings.Repeat("r", 200_000)
	for name, text := range map[string]string{
		"half of a small body": "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nfive.",
		"large body":           "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n" + strings.Repeat("b", 5_000_000),
		"chunked":              "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive.\r\n",
	} {
		for how, end := range map[string]func(*demo.Conn){
			"closed": func(c *demo.Conn) { _ = c.CloseWrite(); c.WaitClosed() },
			"open":   (*demo.Conn).WaitClosed,
			"deaf":   func(c *demo.Conn) { <-c.Done() },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				k := start(t, setup{upstream: once(fmt.Sprintf("HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%s", len(body), body), end)})
				c := k.dial()
				go func() { _, _ = io.WriteString(c.Conn, text) }()
				if a := c.answer().is(k, 413); a.text != body || !a.Close {
					t.Errorf("%d of %d bytes, close %v", len(a.text), len(body), a.Close)
				}
				c.closed()
				if list := k.records(); len(list) != 0 {
					t.Errorf("records %v", list)
				}
			})
		}
	}
}

// Many programs send all of a request before they look for an answer. They get one that came early, and no broken pipe.
func TestEarlyResponseToACallerThatSendsOn(t *testing.T) {
	k := start(t, setup{upstream: once("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno", func(*demo.Conn) {})})
	c := k.dial().send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
	k.any("the caller is waited for", in(phaseLinger))
	begin := k.server.clock.Load()
	k.until("the sweeper has looked at it a few times", func() bool { return k.server.clock.Load()-begin > int64(200*time.Millisecond) })
	c.send(strings.Repeat("b", 1_000_000))
	if a := c.answer().is(k, 413); a.text != "no" {
		t.Errorf("got %q", a.text)
	}
	c.ended()
}

func TestCallerGoneWhileWaiting(t *testing.T) {
	for how, leave := range map[string]func(*caller){
		"close":      func(c *caller) { _ = c.Close() },
		"half close": func(c *caller) { c.half() },
		"reset": func(c *caller) {
			_ = c.Conn.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		},
	} {
		for what, text := range map[string]string{
			"GET":              get("/"),
			"streamed POST":    "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nfive.",
			"chunked POST":     request("POST", "/", "Transfer-Encoding: chunked") + "5\r\nfive.\r\n",
			"whole chunked":    request("POST", "/", "Transfer-Encoding: chunked") + "5\r\nfive.\r\n0\r\n\r\n",
			"waiting for 100":  waitFor100,
			"asked to upgrade": upgrading(),
		} {
			if how == "half close" && !strings.HasPrefix(what, "streamed") && !strings.HasPrefix(what, "chunked") && what != "waiting for 100" {
				continue // it has said all, and waits: see TestAHalfClosedCallerIsAnswered
			}
			t.Run(what+" "+how, func(t *testing.T) {
				there, gone := make(chan bool, 1), make(chan bool, 1)
				k := start(t, setup{upstream: script(func(c *demo.Conn) {
					_, _ = c.ReadHead()
					there <- true
					c.WaitClosed()
					gone <- true
				})})
				c := k.dial().send(text)
				take(k, "the request", there)
				leave(c)
				take(k, "the end of the upstream's connection", gone)
				r := k.faulted(fault.CallerGone, 499)
				if r["blame"] != "caller" || r["level"] != "info" {
					t.Errorf("record %v", r)
				}
				if n := k.metric(`mtls_proxy_response_status_codes_total{code="499",upstream="default"}`); n != 1 {
					t.Errorf("%v answers with 499 counted", n)
				}
			})
		}
	}
}

func TestCallerGoneWhileItIsAnswered(t *testing.T) {
	gone := make(chan bool, 1)
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		_, _ = c.ReadHead()
		c.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		c.WaitClosed()
		gone <- true
	})})
	c := k.dial().send(get("/"))
	c.rawHead()
	_ = c.Close()
	take(k, "the end of the upstream's connection", gone)
	k.faulted(fault.CallerGone, 200)
}

// A caller that stops reading holds nothing for ever.
func TestCallerStopsReading(t *testing.T) {
	k := start(t, setup{timeout: `idle = "100ms"`, upstream: script(func(c *demo.Conn) {
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
	k.faulted(fault.CallerGone, 200)
}

func TestUpstreamStopsReading(t *testing.T) {
	k := start(t, setup{timeout: `idle = "100ms"`, config: "[limits]\nmax_request_body = \"1GiB\"\n", upstream: script(func(c *demo.Conn) {
		_, _ = c.ReadHead()
		<-c.Done()
	})})
	c := k.dial()
	go func() {
		_, _ = io.WriteString(c.Conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
		block := make([]byte, 1<<16)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}()
	if a := c.answer(); a.StatusCode != fault.RequestTimeout.Status() {
		t.Errorf("got %d", a.StatusCode)
	}
	k.faulted(fault.RequestTimeout, fault.RequestTimeout.Status())
}

func TestUpstreamUnreachable(t *testing.T) {
	k := start(t, setup{settings: "retry.attempts = 0"})
	_ = k.upstream.Close()
	c := k.dial()
	c.send(get("/")).answer().problem(k, fault.ConnectionRefused)
	k.faulted(fault.ConnectionRefused, 502)
	c.send(get("/")).answer().problem(k, fault.ConnectionRefused)
}

// Callers who leave at the moment of their answer do no harm to whoever gets the connection next.
func TestLeavingCallersHarmNobody(t *testing.T) {
	k := start(t, setup{})
	stop := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	defer close(stop)
	for range 3 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", k.address)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, get("/delay?d=10ms")) // so long that the sweeper looks at it
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
		})
	}
	c := k.dial()
	for range 300 {
		k.must(c.SetDeadline(time.Now().Add(patience)))
		c.send(post("/delay?d=1ms", "hello")).answer().ok(k)
	}
}

// Many callers at once, some of whom leave: nobody gets another one's answer.
func TestAnswersStayWithTheirCallers(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_concurrent_requests = 1000\n", settings: "pool.max_idle = 3"})
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for n := range 20 {
				path := fmt.Sprintf("/%d/%d", i, n)
				c, err := net.Dial("tcp", k.address)
				if err != nil {
					t.Error(err)
					return
				}
				switch (i + n) % 4 {
				case 0:
					fmt.Fprint(c, get(path))
					_ = c.Close()
					continue
				case 1:
					fmt.Fprint(c, request("POST", path, "Content-Length: 4", "Connection: close")+"fo")
					fmt.Fprint(c, "ur")
				case 2:
					fmt.Fprint(c, request("POST", path, "Transfer-Encoding: chunked", "Connection: close")+"4\r\nfour\r\n")
					fmt.Fprint(c, "0\r\n\r\n")
				default:
					fmt.Fprint(c, get(path, "Connection: close"))
				}
				b, err := io.ReadAll(c)
				_ = c.Close()
				if want := fmt.Sprintf("%q: %q", "target", path); !strings.Contains(string(b), want) || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v, %s", path, err, b)
				}
			}
		})
	}
	group.Wait()
}
