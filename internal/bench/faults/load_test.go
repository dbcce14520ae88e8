//go:build linux

package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load is requests at a fixed rate, whatever becomes of them. It speaks HTTP itself: net/http's client would try some
// requests again and hide that they were lost.
type load struct {
	address  string
	callers  int // connections, kept alive
	requests int
	every    time.Duration
	methods  []string       // in turn
	body     int            // bytes of PUT and POST
	at       map[int]func() // what happens before the request of that number
	play     func()         // what happens beside it; requests go on until it is over, whatever their number
	again    bool           // when an idle connection has been closed, a request is made again on a new one

	sent  atomic.Int64
	late  time.Duration // how late a request was sent for want of a processor, at worst; to be read after run
	tally tally
}

// made is how many requests were due so far.
func (l *load) made() int { return int(l.sent.Load()) }

// more waits until n more requests are due. It is for play.
func (l *load) more(n int64) {
	for end := l.sent.Load() + n; l.sent.Load() < end; <-time.After(l.every) {
	}
}

// patience bounds every wait for the proxy. Only what fails takes this long.
const patience = 20 * time.Second

// tally is what callers saw.
type tally struct {
	mu      sync.Mutex                // guards what follows
	answers map[string]map[string]int // by method, then by answer
	times   []time.Duration           // from when each request was due
	kept    []time.Duration           // of those that were answered 200
	anew    int                       // requests that found their connection closed, and were made on another
	wrong   []string                  // answers that belong to nobody, and other things that must not be
}

// call is one request.
type call struct {
	number int
	due    time.Time
}

// run sends all requests and returns when each has come to its end.
func (l *load) run() *tally {
	l.tally.answers = make(map[string]map[string]int)
	const waiting = 10_000 // calls that no caller has time for
	calls := make(chan call, waiting)
	over := make(chan struct{})
	if l.play == nil {
		close(over)
	} else {
		go func() {
			defer close(over)
			l.play()
		}()
	}
	var group sync.WaitGroup
	for range l.callers {
		group.Go(func() {
			c := caller{load: l}
			for k := range calls {
				c.make(k)
			}
			c.hangUp()
		})
	}
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	start := time.Now()
	for n := 0; n < l.requests || !closed(over); n++ {
		if f := l.at[n]; f != nil {
			f()
		}
		due := start.Add(time.Duration(n) * l.every)
		for time.Now().Before(due) {
			<-tick.C
		}
		l.late = max(l.late, time.Since(due)-l.every)
		calls <- call{n, due}
		l.sent.Add(1)
	}
	close(calls)
	group.Wait()
	return &l.tally
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// caller is a program with one connection.
type caller struct {
	load *load
	conn net.Conn
	r    *bufio.Reader
}

func (c *caller) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *caller) make(k call) {
	method := c.load.methods[k.number%len(c.load.methods)]
	id := fmt.Sprintf("%s-%d", method, k.number)
	answer, err := c.exchange(method, id)
	anew := false
	// A connection that has just been made is idle, too, until the request is there; while others come in hundreds, that may
	// happen to the next one as well.
	for tries := 0; c.load.again && answer == noAnswer && tries < 3; tries++ {
		anew = true
		c.hangUp()
		answer, err = c.exchange(method, id)
	}
	took := time.Since(k.due)
	if err != nil {
		c.hangUp()
	}
	t := &c.load.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answers[method] == nil {
		t.answers[method] = make(map[string]int)
	}
	t.answers[method][answer]++
	t.times = append(t.times, took)
	if anew {
		t.anew++
	}
	if answer == "200" {
		t.kept = append(t.kept, took)
	}
	if err != nil && answer != cut {
		t.wrong = append(t.wrong, fmt.Sprintf("%s: %v", id, err))
	}
}

// What callers may see instead of a status: a response that ended in its body, so that they know that it is not whole,
// and a connection that ended before one.
const (
	cut      = "cut"
	noAnswer = "no answer"
)

// exchange makes a request and tells what came: a status, with the fault if there was one, or cut. After an error, the
// connection is of no more use.
func (c *caller) exchange(method, id string) (answer string, err error) {
	if c.conn == nil {
		if c.conn, err = net.DialTimeout("tcp", c.load.address, patience); err != nil {
			return "not connected", err
		}
		c.r = bufio.NewReader(c.conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	head := fmt.Sprintf("%s /x HTTP/1.1\r\nHost: localhost\r\n%s: %s\r\n", method, idField, id)
	body := ""
	if method != http.MethodGet {
		head += fmt.Sprintf("Content-Length: %d\r\n", c.load.body)
		body = strings.Repeat("b", c.load.body)
	}
	if _, err := io.WriteString(c.conn, head+"\r\n"+body); err != nil && body == "" {
		return noAnswer, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return noAnswer, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return cut, err
	}
	if resp.StatusCode == http.StatusOK {
		if want := answerTo(id); string(got) != want {
			return "wrong", fmt.Errorf("answered %.40q, want %.40q", got, want)
		}
	}
	if resp.Close {
		c.hangUp()
	}
	return told(resp), nil
}

// told is a response's status, with its fault if it has one.
func told(resp *http.Response) string {
	answer := fmt.Sprint(resp.StatusCode)
	for part := range strings.SplitSeq(resp.Header.Get("Proxy-Status"), ";") {
		if fault, ok := strings.CutPrefix(strings.TrimSpace(part), "details="); ok {
			answer += " " + strings.Trim(fault, `"`)
		}
	}
	if resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(answer, " ") && resp.Header.Get("Retry-After") == "" {
		answer += " without Retry-After"
	}
	return answer
}

// sum adds the answers to methods up, to all without any.
func (t *tally) sum(methods ...string) map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]int)
	for method, answers := range t.answers {
		if len(methods) > 0 && !slices.Contains(methods, method) {
			continue
		}
		for answer, n := range answers {
			all[answer] += n
		}
	}
	return all
}

// percentile of sorted times.
func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

// get asks address for one page on a connection of its own.
func get(address string) (string, error) {
	c := caller{load: &load{address: address}}
	defer c.hangUp()
	return c.exchange(http.MethodGet, fmt.Sprintf("GET-alone-%d", lastAlone.Add(1)))
}

// lastAlone counts the requests of get.
var lastAlone atomic.Uint32

var errNotBack = errors.New("it does not answer again")

// recovered waits until a request is answered 200, and then makes sure that it stays so.
func recovered(address string) error {
	for limit := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		if answer, err := get(address); err == nil && answer == "200" {
			break
		} else if time.Now().After(limit) {
			return fmt.Errorf("%w: %s, %v", errNotBack, answer, err)
		}
	}
	for range 10 {
		if answer, err := get(address); err != nil || answer != "200" {
			return fmt.Errorf("after it had answered again: %s, %w", answer, err)
		}
	}
	return nil
}
