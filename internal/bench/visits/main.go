// Command visits is the load of ../duel: it visits running proxies one after another, for some 40 ms each and in an
// order that is drawn anew every time, and prints what each visit cost. What else happens to the machine lasts longer than
// a visit, as a rule, and falls on all of them.
//
//	visits SECONDS ROUNDS get|post|refused|connect NAME=PID[,PID…]:PORT …
//
// With connect each request has a connection of its own.
// ROUNDS is how many requests of a visit count on each connection. A line of the output is a visit to all: the CPU time per
// request of each proxy, in microseconds.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connections = 64
	warm        = 1 // requests of a visit on each connection that are not counted
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "visits:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 4 {
		return fmt.Errorf("usage: visits SECONDS ROUNDS get|post|refused|connect NAME=PID[,PID…]:PORT …")
	}
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	rounds, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var proxies []*proxy
	for _, arg := range args[3:] {
		p, err := dial(arg)
		if err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
		proxies = append(proxies, p)
	}
	request := []byte("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	switch args[2] {
	case "post", "refused": // the upstream answers the second with 404
		path := map[string]string{"post": "/", "refused": "/refused"}[args[2]]
		body := strings.Repeat("x", 512)
		request = fmt.Appendf(nil, "POST "+path+" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	case "connect":
		request = []byte("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
		for _, p := range proxies {
			p.anew = true
		}
	}
	for _, p := range proxies {
		if _, err := p.visit(request, rounds); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	out := bufio.NewWriter(os.Stdout)
	costs := make([]string, len(proxies))
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		for _, i := range rand.Perm(len(proxies)) {
			cost, err := proxies[i].visit(request, rounds)
			if err != nil {
				return fmt.Errorf("%s: %w", proxies[i].name, err)
			}
			costs[i] = strconv.FormatFloat(cost, 'f', 3, 64)
		}
		fmt.Fprintln(out, strings.Join(costs, " "))
	}
	return out.Flush()
}

// proxy is a running one, and the connections to it.
type proxy struct {
	name    string
	pids    []int
	address string
	callers []*caller
	anew    bool // each request gets a connection of its own
}

type caller struct {
	net.Conn
	r *bufio.Reader
}

func dial(arg string) (*proxy, error) {
	name, rest, _ := strings.Cut(arg, "=")
	pids, port, found := strings.Cut(rest, ":")
	if !found {
		return nil, fmt.Errorf("want NAME=PID:PORT")
	}
	p := &proxy{name: name, address: net.JoinHostPort("127.0.0.1", port)}
	for text := range strings.SplitSeq(pids, ",") {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		p.pids = append(p.pids, pid)
	}
	for range connections {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			return nil, err
		}
		p.callers = append(p.callers, &caller{Conn: c, r: bufio.NewReader(c)})
	}
	return p, nil
}

// visit returns what a request costs the proxy, in microseconds of CPU.
func (p *proxy) visit(request []byte, rounds int) (float64, error) {
	if err := p.ask(request, warm); err != nil {
		return 0, err
	}
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if err := p.ask(request, rounds); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	return float64(after-before) / 1e3 / float64(rounds*connections), err
}

// cpu is the CPU time of the proxy's processes so far, in nanoseconds.
func (p *proxy) cpu() (total int64, err error) {
	for _, pid := range p.pids {
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^pid)<<3|2, &t); err != nil { // clock_getcpuclockid(3)
			return 0, err
		}
		total += t.Nano()
	}
	return total, nil
}

// ask sends n requests one after the other on each connection.
func (p *proxy) ask(request []byte, n int) error {
	var group sync.WaitGroup
	errs := make([]error, len(p.callers))
	for i, c := range p.callers {
		group.Go(func() {
			for range n {
				if p.anew {
					errs[i] = c.reconnect(p.address)
				}
				if errs[i] == nil {
					errs[i] = c.exchange(request)
				}
				if errs[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// reconnect replaces the connection.
func (c *caller) reconnect(address string) (err error) {
	_ = c.Close()
	if c.Conn, err = net.Dial("tcp", address); err == nil {
		c.r.Reset(c.Conn)
	}
	return err
}

// exchange reads no more of the response than it has to: what the load costs is not what is measured, but takes its time.
func (c *caller) exchange(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) && !bytes.HasPrefix(line, []byte("HTTP/1.1 404")) {
			return fmt.Errorf("the answer was %q", line)
		}
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); http.CanonicalHeaderKey(string(name)) == "Content-Length" {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("the answer has no Content-Length")
	}
	_, err := io.CopyN(io.Discard, c.r, int64(length))
	return err
}
