package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// bodiless is a server as people write them: it answers what looks like a request by the head alone, naming the target, and whatever
// the body held it takes for the next one. The target's query says how: its status, and after how many milliseconds. An "early" one is
// answered, and only then read to its end.
func bodiless(c *demo.Conn) {
	r := bufio.NewReader(c.Conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		if len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/1.") {
			return // not even this server takes that for a request
		}
		length, chunked := 0, false
		for {
			field, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if field = strings.TrimSpace(field); field == "" {
				break
			}
			_, _ = fmt.Sscanf(field, "Content-Length: %d", &length)
			chunked = chunked || strings.EqualFold(field, "Transfer-Encoding: chunked")
		}
		status, pause, early := 200, 0, false
		if _, query, ok := strings.Cut(words[1], "?"); ok {
			_, _ = fmt.Sscanf(query, "%d,%d,%t", &status, &pause, &early)
		}
		time.Sleep(time.Duration(pause) * time.Millisecond) // how long it works on the request
		c.WriteString(fmt.Sprintf("HTTP/1.1 %d So\r\nContent-Length: %d\r\n\r\n", status, len(words[1])))
		if words[0] != "HEAD" {
			c.WriteString(words[1])
		}
		if early && !chunked {
			_, _ = io.CopyN(io.Discard, r, int64(length))
		}
	}
}

// Whatever callers send to a server that does not read bodies as bodies, no other caller gets an answer that is not its own.
func TestNoCallerGetsAnothersAnswer(t *testing.T) {
	const attackers, others, each = 6, 10, 1250
	k := start(t, setup{upstream: script(bodiless), timeout: `tunnel_idle = "1h"`})
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW"}
	statuses := []int{200, 404, 500}
	var group sync.WaitGroup
	begin := make(chan struct{})
	for a := range attackers {
		c := k.dial()
		group.Go(func() {
			<-begin
			for i := range each {
				n := a*each + i
				method, status := methods[n%len(methods)], statuses[n/7%len(statuses)]
				body := fmt.Sprintf("GET /smuggled-%d?200,%d,false HTTP/1.1\r\nHost: x\r\n\r\n", n, n/3%4)
				framing := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
				if n%5 == 0 {
					framing = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
				}
				text := fmt.Sprintf("%s /mine?%d,%d,%t HTTP/1.1\r\nHost: localhost\r\n%s", method, status, n%3, n%4 == 0, framing)
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(c.Conn, text); err != nil {
					c = k.redial(c)
					continue
				}
				r, err := http.ReadResponse(c.r, &http.Request{Method: method})
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
				}
				if err != nil || r.Close {
					c = k.redial(c)
				}
			}
		})
	}
	for o := range others {
		c := k.dial()
		group.Go(func() {
			<-begin
			for i := range each {
				target := fmt.Sprintf("/other-%d-%d?200,%d,false", o, i, i%2)
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(c.Conn, get(target)); err != nil {
					t.Errorf("%s: %v", target, err)
					return
				}
				r, err := http.ReadResponse(c.r, nil)
				if err != nil {
					t.Errorf("%s: %v", target, err)
					return
				}
				b, err := io.ReadAll(r.Body)
				if err != nil || r.StatusCode == 200 && string(b) != target {
					t.Errorf("%s got %d %q, %v", target, r.StatusCode, b, err)
					return
				}
				if r.Close {
					c = k.redial(c)
				}
			}
		})
	}
	close(begin)
	group.Wait()
}

// redial gives up one connection for another.
func (k *kit) redial(c *caller) *caller {
	_ = c.Close()
	return k.dial()
}

// An unsolicited second response is no answer to the next caller's request, and its server gets one request a connection from
// then on.
func TestAServerThatAnswersTwice(t *testing.T) {
	second := make(chan bool, 1)
	k := start(t, setup{upstream: script(func(c *demo.Conn) {
		for {
			r, err := c.ReadRequest()
			if err != nil {
				return
			}
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.URL.Path), r.URL.Path)
			c.WriteString(answer)
			if r.URL.Path == "/twice" {
				time.Sleep(5 * time.Millisecond) // of this server: the second response comes after the first was read
				c.WriteString(answer)
				second <- true
			}
		}
	})})
	k.dial().send(get("/twice")).answer().ok(k)
	take(k, "the second answer", second)
	for i := range 3 {
		if a := k.dial().send(get("/once")).answer().ok(k); a.text != "/once" {
			t.Errorf("the next caller got %q", a.text)
		}
		if n := k.upstream.Stats().Connections; n != i+2 {
			t.Errorf("%d connections after %d requests, want one for each", n, i+2)
		}
	}
}
