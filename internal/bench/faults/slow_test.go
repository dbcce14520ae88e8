//go:build linux

package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd is callers that do not behave.
type crowd struct {
	group sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns []net.Conn
}

// join connects another one and has it send text, if there is any.
func (c *crowd) join(t testing.TB, address, text string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Errorf("a caller cannot connect: %v", err)
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if text != "" {
		_, _ = io.WriteString(conn, text) // it may have been turned away
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
	return conn
}

// leave ends all connections and waits for who is at work on them.
func (c *crowd) leave() {
	c.mu.Lock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
	c.mu.Unlock()
	c.group.Wait()
}

// dribble sends text a byte at a time, for ever, until the connection fails.
func dribble(conn net.Conn, text string) {
	for i := 0; ; i++ {
		if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// longID is what the names of requests for a long body begin with.
const longID = "GET-long-"

// slowness is a way in which callers do not behave.
type slowness struct {
	name  string
	start string // what each sends at once
	drip  string // and then byte by byte
	deaf  bool   // it does not read what it gets

	answers []string // what it may be told before the connection ends
}

func slownesses() []slowness {
	return []slowness{
		{name: "heads byte by byte", start: "GET / HTTP/1.1\r\n", drip: "a", answers: []string{"408 request_header_timeout"}},
		{name: "heads that do not go on", start: "GET / HTTP/1.1\r\nHost: loc", answers: []string{"408 request_header_timeout"}},
		{
			name:    "bodies byte by byte",
			start:   "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
			drip:    "b",
			answers: []string{"408 request_body_timeout", "504 request_timeout"},
		},
		{
			name:    "bodies that do not go on",
			start:   "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nsome",
			answers: []string{"408 request_body_timeout"},
		},
		{name: "callers that never read", start: "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + idField + ": " + longID + "\r\n\r\n", deaf: true},
	}
}

// Callers that are slow lose their connections, and those beside them notice nothing.
func TestSlowCallers(t *testing.T) {
	const crowded = 40
	for _, slow := range slownesses() {
		t.Run(slow.name, func(t *testing.T) {
			s := set(t, 1)
			if slow.deaf {
				s.endpoints[0].trouble.Store(longFor(longID, 16<<20))
			}
			var c crowd
			defer c.leave()
			l := s.load()
			l.methods = []string{http.MethodGet}
			got := tally{answers: map[string]map[string]int{"": {}}}
			l.at[l.requests/4] = func() {
				for n := range crowded {
					conn := c.join(t, s.proxy.address, strings.ReplaceAll(slow.start, longID, fmt.Sprint(longID, n)))
					if slow.drip != "" {
						c.group.Go(func() { dribble(conn, slow.drip) })
					}
					if !slow.deaf {
						c.group.Go(func() { got.add(t, conn) })
					}
				}
			}
			l.play = func() {
				for l.sent.Load() <= int64(l.requests/4) {
					<-time.After(l.every)
				}
				l.more(20)
				s.proxy.until("only those who behave are left", func() bool {
					return s.proxy.metric("mtls_proxy_active_connections") <= float64(l.callers)
				})
			}
			tally := l.run()
			s.only(tally, everything, "200")
			s.endpoints[0].heal()
			c.leave()
			for answer, n := range got.sum() {
				if !slices.Contains(slow.answers, answer) {
					t.Errorf("%d of the slow got %q, want %v", n, answer, slow.answers)
				}
			}
			name := slow.name
			if told := got.summary(); told != "" {
				name += " (they get " + told + ")"
			}
			s.end("Callers that are slow", name, l)
		})
	}
}

// add reads what the proxy says before it ends the connection.
func (t *tally) add(tb testing.TB, conn net.Conn) {
	r := bufio.NewReader(conn)
	answer := noAnswer
	if resp, err := http.ReadResponse(r, nil); err == nil {
		answer = told(resp)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if _, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) {
		tb.Error("the proxy never ended the connection of a slow caller")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers[""][answer]++
}

// longFor answers requests whose names begin with id with a body of n bytes, and others as usual.
func longFor(id string, n int) *trouble {
	long := sends(n)
	return &trouble{strike: func(p *peer, req *http.Request) bool {
		if strings.HasPrefix(req.Header.Get(idField), id) {
			return long.strike(p, req)
		}
		return p.answer(req)
	}}
}
