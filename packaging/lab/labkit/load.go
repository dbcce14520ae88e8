package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// load asks one URL over and over. It speaks HTTP itself: net/http's client
// would try some requests again and hide that they were lost.
type load struct {
	url       string
	workers   int
	keepAlive bool
	every     time.Duration
	timeout   time.Duration
	out       io.Writer
}

// report is what load prints at the end.
type report struct {
	Requests    int            `json:"requests"`
	Failed      int            `json:"failed"`  // no answer, or one other than 200
	Refused     int            `json:"refused"` // those of them whose connection was refused
	Faults      map[string]int `json:"faults,omitempty"`
	Connections int            `json:"connections"`
	Announced   int            `json:"announced"`   // kept connections that the server said it would close
	ClosedIdle  int            `json:"closed_idle"` // and those that it closed while nothing was asked
	Serials     map[string]int `json:"serials"`
	MedianMs    float64        `json:"median_ms"`
	P99Ms       float64        `json:"p99_ms"`
	MaxMs       float64        `json:"max_ms"`
}

// tally collects what the workers saw.
type tally struct {
	mu    sync.Mutex
	r     report
	times []time.Duration
}

var (
	serialPattern = regexp.MustCompile(`serial=([0-9a-f]+)`)
	// The port that the kernel chose would make every message another one.
	localPort = regexp.MustCompile(`:\d+->`)
)

func (t *tally) add(took time.Duration, a answered, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Requests++
	t.times = append(t.times, took)
	for n, is := range map[*int]bool{&t.r.Connections: a.dialled, &t.r.Announced: a.announced, &t.r.ClosedIdle: a.closedIdle} {
		if is {
			*n++
		}
	}
	if err != nil {
		t.r.Failed++
		if errors.Is(err, syscall.ECONNREFUSED) {
			t.r.Refused++
		}
		t.r.Faults[localPort.ReplaceAllString(err.Error(), "->")]++
		return
	}
	if m := serialPattern.FindStringSubmatch(a.body); m != nil {
		t.r.Serials[m[1]]++
	}
}

func (t *tally) report() report {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.times); n > 0 {
		slices.Sort(t.times)
		ms := func(i int) float64 { return float64(t.times[i].Microseconds()) / 1000 }
		t.r.MedianMs, t.r.P99Ms, t.r.MaxMs = ms(n/2), ms(n*99/100), ms(n-1)
	}
	return t.r
}

// run lets every worker finish what it has begun once ctx ends.
func (l *load) run(ctx context.Context) error {
	u, err := url.Parse(l.url)
	if err != nil {
		return err
	}
	t := &tally{r: report{Faults: map[string]int{}, Serials: map[string]int{}}}
	var workers sync.WaitGroup
	for i := range l.workers {
		workers.Go(func() {
			c := &caller{host: u.Host, request: l.request(u), timeout: l.timeout, keep: l.keepAlive}
			defer c.close()
			// Spread the workers over the interval.
			wait := l.every * time.Duration(i) / time.Duration(l.workers)
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				start := time.Now()
				a, err := c.ask()
				t.add(time.Since(start), a, err)
				wait = l.every
			}
		})
	}
	workers.Wait()
	r := t.report()
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Fprintf(l.out, "%s\n", text)
	if r.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed", r.Failed, r.Requests)
	}
	if r.Requests == 0 {
		return errors.New("not a single request was sent")
	}
	return nil
}

func (l *load) request(u *url.URL) string {
	if l.keepAlive {
		return post(u)
	}
	return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", u.RequestURI(), u.Host)
}

// post is a request that nobody may send twice.
func post(u *url.URL) string {
	const body = `{"amount":"12.50","currency":"EUR"}`
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		u.RequestURI(), u.Host, len(body), body)
}

// caller is one client, with at most one connection.
type caller struct {
	host    string
	request string
	timeout time.Duration
	keep    bool
	conn    net.Conn
	reader  *bufio.Reader
}

func (c *caller) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// answered is what came of one request.
type answered struct {
	body       string
	dialled    bool // on a new connection
	announced  bool // a kept connection ends with this answer
	closedIdle bool // a kept connection had ended before this request was sent
}

// ask sends one request and reads the whole answer. It never tries twice. That
// the server announced the end of a kept connection is no fault, nor that it
// closed one on which nothing was asked, if it is seen before the request goes
// out: who sends into a connection that closes has lost the request.
func (c *caller) ask() (a answered, err error) {
	if c.conn != nil {
		if a.closedIdle, err = c.ended(); err != nil || a.closedIdle {
			c.close()
		}
		if err != nil {
			return a, err
		}
	}
	if c.conn == nil {
		a.dialled = true
		c.conn, err = net.DialTimeout("tcp", c.host, c.timeout)
		if err != nil {
			return a, err
		}
		c.reader = bufio.NewReader(c.conn)
	}
	var again bool
	a.body, again, err = c.exchange()
	a.announced = err == nil && c.keep && !again
	if err != nil || !again {
		c.close()
	}
	return a, err
}

// ended reports whether the server has closed an idle connection. An error says
// that it did so without manners, or sent what nobody asked for.
func (c *caller) ended() (bool, error) {
	sc, ok := c.conn.(syscall.Conn)
	if !ok {
		return false, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false, err
	}
	n := c.reader.Buffered()
	var found error
	if err := raw.Control(func(fd uintptr) {
		if n == 0 {
			n, _, found = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		}
	}); err != nil {
		return false, err
	}
	switch {
	case errors.Is(found, syscall.EAGAIN):
		return false, nil
	case found != nil:
		return false, fmt.Errorf("idle: %w", found)
	case n > 0:
		return false, errors.New("idle: the server sent what nobody asked for")
	}
	return true, nil
}

func (c *caller) exchange() (body string, again bool, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return "", false, err
	}
	if _, err := io.WriteString(c.conn, c.request); err != nil {
		return "", false, fmt.Errorf("send: %w", err)
	}
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", false, fmt.Errorf("read the answer: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return "", false, fmt.Errorf("read the body: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return "", false, fmt.Errorf("answered %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	return string(text), c.keep && !res.Close, nil
}
