package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestKeepAlive(t *testing.T) {
	k := start(t, setup{})
	path := k.unix()
	for _, c := range []*caller{k.dial(), k.connect("unix", path)} {
		for range 3 {
			c.send(get("/echo")).answer().ok(k)
		}
	}
	if n := k.upstream.Stats().Connections; n > 2 { // the second caller may be faster than the pool
		t.Errorf("%d connections to the upstream, want one for a caller", n)
	}
	if n := k.metric(`mtls_proxy_requests_total{listener="http",route="default",upstream="default"}`); n != 6 {
		t.Errorf("%v requests counted, want 6\n%s", n, grep(k.scrape(), "requests_total"))
	}
}

// mixture is several requests with bodies of every kind, back to back.
func mixture() (text string, want []string) {
	add := func(request, method string, bytes int64) {
		text += request
		want = append(want, fmt.Sprint(method, " ", bytes))
	}
	for i := range 3 {
		add(get(fmt.Sprint("/", i)), "GET", 0)
		add(post("/", strings.Repeat("x", 10+i)), "POST", int64(10+i))
		add(request("PUT", "/", "Transfer-Encoding: chunked")+"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n", "PUT", 7)
		add("\r\n"+get("/"), "GET", 0) // one empty line before a request is skipped
		add(request("DELETE", "/", "Content-Length: 0"), "DELETE", 0)
	}
	return text, want
}

func (c *caller) mixed(want []string) {
	c.k.Helper()
	for i, w := range want {
		s := c.answer().seen(c.k)
		if got := fmt.Sprint(s.Method, " ", s.BodyBytes); got != w {
			c.k.Fatalf("answer %d is for %q, want %q", i, got, w)
		}
	}
}

func TestPipelining(t *testing.T) {
	k := start(t, setup{})
	text, want := mixture()
	t.Run("one write", func(*testing.T) { k.dial().send(text).mixed(want) })
	t.Run("byte by byte", func(*testing.T) {
		c := k.dial()
		for i := range len(text) {
			c.send(text[i : i+1])
		}
		c.mixed(want)
	})
	t.Run("many", func(*testing.T) {
		c := k.dial()
		go func() { _, _ = io.WriteString(c.Conn, strings.Repeat(get("/"+strings.Repeat("p", 300)), 300)) }()
		for range 300 {
			c.answer().ok(k)
		}
	})
	if n := k.upstream.Stats().Connections; n > 3 {
		t.Errorf("%d connections to the upstream, want no more than one for a caller", n)
	}
}

// Heads are written where there is room beside what was read, which depends on the sizes of both, and on what the operator adds.
func TestMessagesOfAllSizes(t *testing.T) {
	mirror := script(func(c *demo.Conn) {
		for {
			r, body, err := readWhole(c)
			if err != nil {
				return
			}
			c.WriteString(fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Fill: %s\r\nX-Added: %s\r\nContent-Length: %d\r\n\r\n%s",
				r.Header.Get("X-Fill"), r.Header.Get("X-Ours"), len(body), body))
		}
	})
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a' + byte(i*7+i/251)%26
		}
		return string(b)
	}
	for _, added := range []int{1, 900, 3000} {
		t.Run(fmt.Sprint(added, " bytes added"), func(t *testing.T) {
			ours := text(added)
			k := start(t, setup{upstream: mirror, config: fmt.Sprintf(
				"[[route]]\nrequest_headers = { set = { X-Ours = %q } }\nresponse_headers = { set = { X-Ours = %[1]q } }\n", ours)})
			c := k.dial()
			for _, fill := range []int{0, 1000, 7000} {
				for n := 0; n < 36<<10; n += 509 {
					body := text(n)
					a := c.send(post("/", body, "X-Fill: "+text(fill))).answer().ok(k)
					if a.text != body || a.Header.Get("X-Fill") != text(fill) || a.Header.Get("X-Added") != ours || a.Header.Get("X-Ours") != ours {
						t.Fatalf("%d bytes with a head of %d came back as %d bytes: %.200q, and fields of %d, %d and %d bytes", n, fill,
							len(a.text), a.text, len(a.Header.Get("X-Fill")), len(a.Header.Get("X-Added")), len(a.Header.Get("X-Ours")))
					}
				}
			}
		})
	}
}

func TestRequestTrailersReachTheUpstream(t *testing.T) {
	k := start(t, setup{})
	s := k.dial().send(request("POST", "/", "Transfer-Encoding: chunked", "Trailer: X-Sum") +
		"3\r\nabc\r\n0\r\nX-Sum: 3\r\nContent-Length: 9\r\n\r\n").answer().seen(k)
	if got := s.Trailers["X-Sum"]; len(got) != 1 || got[0] != "3" || !s.Chunked || s.BodyBytes != 3 {
		t.Errorf("the upstream saw %+v", s)
	}
	if _, ok := s.Trailers["Content-Length"]; ok && s.Trailers["Content-Length"] != nil {
		t.Errorf("Content-Length got through as a trailer: %v", s.Trailers)
	}
}

func TestResponseFraming(t *testing.T) {
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		for {
			r, err := c.ReadRequest()
			if err != nil {
				return
			}
			switch r.URL.Path {
			case "/length":
				c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
			case "/chunked":
				c.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nbo\r\n")
				c.WriteString("2;ext\r\ndy\r\n0\r\nX-Sum: 4\r\n\r\n")
			case "/close":
				c.WriteString("HTTP/1.1 200 OK\r\n\r\nbo")
				c.WriteString("dy")
				return // with close_notify
			case "/old":
				c.WriteString("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody")
				return
			case "/empty":
				c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			case "/204":
				c.WriteString("HTTP/1.1 204 No Content\r\n\r\n")
			case "/304":
				c.WriteString("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nETag: \"x\"\r\n\r\n")
			case "/head":
				c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
			}
		}
	})})
	for _, c := range []struct {
		method, path string
		status       int
		body         string
		framing      string // in the head that the caller of HTTP/1.1 sees
	}{
		{"GET", "/length", 200, "body", "Content-Length: 4"},
		{"GET", "/chunked", 200, "body", "Transfer-Encoding: chunked"},
		{"GET", "/close", 200, "body", "Transfer-Encoding: chunked"},
		{"GET", "/old", 200, "body", "Content-Length: 4"},
		{"GET", "/empty", 200, "", "Content-Length: 0"},
		{"GET", "/204", 204, "", ""},
		{"GET", "/304", 304, "", "Content-Length: 4"},
		{"HEAD", "/head", 200, "", "Content-Length: 4"},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			now := k.dial()
			// Twice: the end of the first must be where it seems to be.
			now.send(request(c.method, c.path) + request(c.method, c.path))
			for range 2 {
				a := now.answerTo(c.method).is(k, c.status)
				if a.text != c.body {
					t.Errorf("HTTP/1.1: body %q, want %q", a.text, c.body)
				}
				if c.path == "/chunked" && a.Trailer.Get("X-Sum") != "4" {
					t.Errorf("trailers %v", a.Trailer)
				}
			}
			head := k.dial().send(request(c.method, c.path)).rawHead()
			if c.framing != "" && !strings.Contains(head, c.framing+"\r\n") {
				t.Errorf("head %q lacks %q", head, c.framing)
			}
			// HTTP/1.0, with keep-alive only where the end of the body can be told.
			old := k.dial().send(c.method + " " + c.path + " HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
			a := old.answerTo(c.method).is(k, c.status)
			kept := a.Header.Get("Connection") == "keep-alive"
			if a.text != c.body || kept == (c.framing == "Transfer-Encoding: chunked") || len(a.TransferEncoding) > 0 {
				t.Errorf("HTTP/1.0: %v %q", a.Header, a.text)
			}
			if !kept {
				old.ended()
				return
			}
			old.send(c.method+" "+c.path+" HTTP/1.0\r\n\r\n").answerTo(c.method).is(k, c.status)
			old.ended()
		})
	}
}

func TestConnectionClose(t *testing.T) {
	k := start(t, setup{})
	for name, text := range map[string]string{
		"1.1 close":                get("/", "Connection: close"),
		"1.0":                      "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
		"close with more behind":   get("/", "Connection: close") + get("/never"),
		"a method that we made up": request("FROB", "/", "Connection: close"),
	} {
		t.Run(name, func(t *testing.T) {
			c := k.dial().send(text)
			if a := c.answer().ok(k); a.Header.Get("Connection") != "close" && !a.Close {
				t.Errorf("no word of the close: %v", a.Header)
			}
			c.ended()
		})
	}
}

func TestTargets(t *testing.T) {
	k := start(t, setup{})
	c := k.dial()
	for target, want := range map[string]string{
		"/a%20b?x=%2F&y#":             "",
		"/a%20b?x=%2F&y":              "/a%20b?x=%2F&y",
		"/?":                          "/?",
		"/;a=b/c,d":                   "/;a=b/c,d",
		"http://localhost/abs?q":      "/abs?q",
		"http://localhost:8080":       "/",
		"http://localhost:8080?query": "/?query",
	} {
		if want == "" {
			k.dial().send(get(target)).answer().problem(k, fault.BadRequest)
			continue
		}
		if s := c.send(get(target)).answer().seen(k); s.Target != want {
			t.Errorf("%s reached the upstream as %q, want %q", target, s.Target, want)
		}
	}
	// The authority of the target counts, not the Host beside it.
	if a := k.dial().send("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n").answer(); a.StatusCode != 421 {
		t.Errorf("an absolute target elsewhere got %d", a.StatusCode)
	}
}

func TestOptionsAndMaxForwards(t *testing.T) {
	k := start(t, setup{config: "[[route]]\nmethods = [\"GET\", \"OPTIONS\", \"TRACE\"]\n"})
	c := k.dial()
	c.send(request("OPTIONS", "*")).answer().ok(k) // net/http has an answer of its own to this
	if s := c.send(request("OPTIONS", "/", "Max-Forwards: 5")).answer().seen(k); s.Headers["Max-Forwards"][0] != "4" {
		t.Errorf("Max-Forwards: %v", s.Headers)
	}
	n := k.upstream.Stats().Requests
	a := c.send(request("OPTIONS", "*", "Max-Forwards: 0")).answer().ok(k)
	if a.text != "" || k.upstream.Stats().Requests != n {
		t.Errorf("Max-Forwards: 0 went on, or was answered with %q", a.text)
	}
	a = c.send(request("TRACE", "/", "Max-Forwards: 0")).answer().problem(k, fault.MethodNotAllowed)
	if got := a.Header.Get("Allow"); got == "" {
		t.Error("405 without Allow")
	}
	if s := c.send(get("/", "Max-Forwards: 0")).answer().seen(k); s.Method != "GET" { // means nothing with GET
		t.Error("GET")
	}
	k.dial().send(request("OPTIONS", "/", "Max-Forwards: 0", "Content-Length: 5")).answer().ok(k)
}

func TestServerSentEventArrivesBeforeTheEnd(t *testing.T) {
	next := make(chan string)
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		c.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for event := range next {
			fmt.Fprintf(c, "%x\r\n%s\r\n", len(event), event)
		}
		c.WriteString("0\r\n\r\n")
	})})
	c := k.dial().send(get("/events"))
	a := c.headTo("GET")
	for i := range 3 {
		event := fmt.Sprintf("data: %d\n\n", i)
		next <- event
		got := make([]byte, len(event))
		if _, err := io.ReadFull(a.Body, got); err != nil || string(got) != event {
			t.Fatalf("event %d: %q, %v", i, got, err)
		}
	}
	close(next)
	if _, err := io.ReadAll(a.Body); err != nil {
		t.Fatal(err)
	}
}

func TestLargeBodies(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_request_body = \"64MiB\"\n"})
	block := []byte(strings.Repeat("0123456789abcdef", 1<<16)) // 1 MiB
	const blocks = 6
	sum := sha256.New()
	for range blocks {
		sum.Write(block)
	}
	want := fmt.Sprintf("%q", hex.EncodeToString(sum.Sum(nil)))
	t.Run("up with length", func(t *testing.T) {
		c := k.dial()
		for range 2 {
			go func() {
				c.Write([]byte(request("POST", "/upload", fmt.Sprint("Content-Length: ", blocks*len(block)))))
				for range blocks {
					c.Write(block)
				}
			}()
			if a := c.answer().ok(k); !strings.Contains(a.text, want) {
				t.Errorf("got %s, want %s", a.text, want)
			}
		}
	})
	t.Run("up in chunks", func(t *testing.T) {
		c := k.dial()
		for range 2 {
			go func() {
				w := io.Writer(c)
				fmt.Fprint(w, request("POST", "/upload", "Transfer-Encoding: chunked"))
				for range blocks {
					for at, n := 0, 1; at < len(block); at, n = at+n, n*3%70001+1 {
						n = min(n, len(block)-at)
						fmt.Fprintf(w, "%x\r\n%s\r\n", n, block[at:at+n])
					}
				}
				fmt.Fprint(w, "0\r\n\r\n")
			}()
			if a := c.answer().ok(k); !strings.Contains(a.text, want) {
				t.Errorf("got %s, want %s", a.text, want)
			}
		}
	})
	t.Run("down", func(t *testing.T) {
		c := k.dial()
		for range 2 {
			a := c.send(get(fmt.Sprintf("/bytes?n=%d", 5<<20+1))).headTo("GET")
			got := sha256.New()
			n, err := io.Copy(got, a.Body)
			line := "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n"
			want := sha256.Sum256([]byte(strings.Repeat(line, 5<<20/64) + line[:1]))
			if err != nil || n != 5<<20+1 || hex.EncodeToString(got.Sum(nil)) != hex.EncodeToString(want[:]) {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
	})
	if n := k.upstream.Stats().Connections; n > 3 { // one for each caller: after a body it stays theirs for a moment
		t.Errorf("%d connections to the upstream", n)
	}
}

// Some servers pad chunk sizes with blanks.
func TestPaddedChunkSizes(t *testing.T) {
	k := start(t, setup{upstream: answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\t \r\n\r\n")})
	if a := k.dial().send(get("/")).answer().ok(k); a.text != "hello" {
		t.Errorf("got %q, want hello", a.text)
	}
}

func TestLargeChunkedDownload(t *testing.T) {
	block := strings.Repeat("z", 100_000)
	k := start(t, setup{upstream: demo.UpstreamOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 40 {
			_, _ = io.WriteString(w, block)
		}
		w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
	})}})
	for _, version := range []string{"1.1", "1.0"} {
		a := k.dial().send("GET / HTTP/" + version + "\r\nHost: localhost\r\n\r\n").answer().ok(k)
		if len(a.text) != 40*len(block) || strings.Trim(a.text, "z") != "" {
			t.Errorf("HTTP/%s: %d bytes", version, len(a.text))
		}
	}
}

// A caller that reads slowly and an upstream that does gets all there is all the same.
func TestSlowReaders(t *testing.T) {
	release := make(chan struct{})
	k := start(t, setup{
		upstream: demo.UpstreamOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		})},
	})
	c := k.dial()
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c.Conn, post("/", strings.Repeat("s", 9<<20)))
		sent <- err
	}()
	k.until("the upload began", func() bool { return k.active() == 1 })
	close(release)
	if a := c.answer().ok(k); a.text != fmt.Sprint(9<<20) {
		t.Errorf("the upstream got %s bytes", a.text)
	}
	k.must(<-sent)
}

// An answer may be faster than the goroutine that has sent what it answers. The connections live on all the same.
func TestUploadsKeepTheConnections(t *testing.T) {
	k := start(t, setup{})
	c := k.dial()
	for i := range 300 {
		c.send(request("POST", "/upload", "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n")
		if a := c.answer().ok(k); a.Close {
			t.Fatalf("closed after %d", i)
		}
	}
	if n := k.upstream.Stats().Connections; n != 1 {
		t.Errorf("%d connections to the upstream, want 1", n)
	}
}

// The goroutine that sent the last of a request's body may have to wait for a CPU before it can say so. A response that is
// faster does not take the caller's connection for that.
func TestAResponseWaitsForWhoSentTheLastPiece(t *testing.T) {
	k := start(t, setup{})
	k.dial().send(get("/")).answer().ok(k)
	u := &upload{conn: k.kept(), done: make(chan struct{})}
	u.spent.Store(true)
	time.AfterFunc(3*lastPiece, func() {
		u.ended.Store(true)
		close(u.done)
	})
	if !u.settled() {
		t.Error("the upload, which only wants a CPU, was given up")
	}
}
