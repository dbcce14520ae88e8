package upstream

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func (w *world) stats(t *testing.T, idle, active int) {
	t.Helper()
	if gotIdle, gotActive := w.all.Stats(); gotIdle != idle || gotActive != active {
		t.Errorf("Stats() = %d idle, %d active; want %d, %d", gotIdle, gotActive, idle, active)
	}
}

func TestTakeReturnsTheOneUsedLast(t *testing.T) {
	w := newWorld(t).build(t)
	now := time.Now()
	if c := w.up.Take(now); c != nil {
		t.Errorf("Take of an empty pool = %v, want nil", c)
	}
	a, b := w.dial(t), w.dial(t)
	w.stats(t, 0, 2)
	get(t, a)
	get(t, b)
	if a.Reused() || a.Upstream() != w.all || a.Endpoint() != w.up {
		t.Errorf("Reused() = %v, Upstream() = %p; want false, %p", a.Reused(), a.Upstream(), w.all)
	}
	a.Keep(now, -1)
	b.Keep(now, -1)
	w.stats(t, 2, 0)
	for _, want := range []*Conn{b, a, nil} {
		got := w.up.Take(now.Add(time.Second)) // after so long, it is looked at
		if got != want {
			t.Fatalf("Take = %p, want %p", got, want)
		}
		if got != nil && (!got.Reused() || string(get(t, got)) == "") {
			t.Errorf("Reused() = %v, want true and an answer", got.Reused())
		}
	}
	w.stats(t, 0, 2)
	a.Close(metrics.ClosedByResponse)
	b.Close(metrics.ClosedTunnel)
	w.stats(t, 0, 0)
	if got := w.server.Stats().Connections; got != 2 {
		t.Errorf("the server saw %d connections, want 2", got)
	}
	for name, want := range map[string]int{"opened": 2, "reused": 2} {
		if got := w.counter(t, "mtls_proxy_upstream_connections_"+name+"_total"); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
	for _, why := range []metrics.CloseReason{metrics.ClosedByResponse, metrics.ClosedTunnel} {
		if got := w.closed(t, why); got != 1 {
			t.Errorf("closed for %v = %d, want 1", why, got)
		}
	}
}

func TestConnectionsAreKeptWithinTheirBounds(t *testing.T) {
	const yes, no = true, false
	for name, c := range map[string]struct {
		pool    Pool
		promise time.Duration
		after   time.Duration // from Keep to Take
		want    bool
		why     metrics.CloseReason
	}{
		"no bound":                     {Pool{MaxIdle: 1}, -1, 12 * time.Hour, yes, 0},
		"none is kept":                 {Pool{}, -1, 0, no, metrics.ClosedFull},
		"idle_timeout to come":         {Pool{MaxIdle: 1, IdleTimeout: time.Minute}, -1, time.Minute - 1, yes, 0},
		"idle_timeout":                 {Pool{MaxIdle: 1, IdleTimeout: time.Minute}, -1, time.Minute, no, metrics.ClosedIdle},
		"max_age to come":              {Pool{MaxIdle: 1, MaxAge: time.Hour}, -1, 59 * time.Minute, yes, 0},
		"max_age":                      {Pool{MaxIdle: 1, MaxAge: time.Hour}, -1, time.Hour, no, metrics.ClosedAge},
		"promise to come":              {Pool{MaxIdle: 1}, 10 * time.Second, 9*time.Second - 1, yes, 0},
		"a second before promise":      {Pool{MaxIdle: 1}, 10 * time.Second, 9 * time.Second, no, metrics.ClosedIdle},
		"half of a short one":          {Pool{MaxIdle: 1}, time.Second, 500 * time.Millisecond, no, metrics.ClosedIdle},
		"no promise at all":            {Pool{MaxIdle: 1}, 0, 0, no, metrics.ClosedIdle},
		"the certificate is over":      {Pool{MaxIdle: 1}, -1, 48 * time.Hour, no, metrics.ClosedAge},
		"promise beyond idle_timeout":  {Pool{MaxIdle: 1, IdleTimeout: time.Minute}, time.Hour, time.Minute, no, metrics.ClosedIdle},
		"idle_timeout beyond promises": {Pool{MaxIdle: 1, IdleTimeout: time.Hour}, time.Minute, time.Minute, no, metrics.ClosedIdle},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.build(t)
			w.up.o.Pool = c.pool
			conn := w.dial(t)
			get(t, conn)
			now := time.Now()
			conn.Keep(now, c.promise)
			got := w.up.Take(now.Add(c.after))
			if (got != nil) != c.want {
				t.Fatalf("Take after %v = %p, want one: %v", c.after, got, c.want)
			}
			if got != nil {
				got.Close(metrics.ClosedByResponse)
			} else if n := w.closed(t, c.why); n != 1 {
				t.Errorf("closed for %v = %d, want 1", c.why, n)
			}
			eventually(t, "the server to see the end", func() bool { return w.server.Stats().Open == 0 })
		})
	}
}

func TestKeepHoldsMaxIdle(t *testing.T) {
	w := newWorld(t)
	w.options.Pool.MaxIdle = 2
	w.build(t)
	var all [3]*Conn
	for i := range all {
		all[i] = w.dial(t)
		get(t, all[i])
	}
	for _, c := range all {
		c.Keep(time.Now(), -1)
	}
	w.stats(t, 2, 0)
	if got := w.closed(t, metrics.ClosedFull); got != 1 {
		t.Errorf("closed for want of room = %d, want 1", got)
	}
	eventually(t, "the server to see the end", func() bool { return w.server.Stats().Open == 2 })
}

// While a connection idles, its upstream may end it or say something that nobody asked for. The next exchange must not
// have it.
func TestTakeReturnsNoneThatTheUpstreamTouched(t *testing.T) {
	for name, touch := range map[string]func(c *demo.Conn){
		"close":             func(c *demo.Conn) { c.Close() },
		"close_notify only": func(c *demo.Conn) { _ = c.CloseWrite() },
		"bare end":          func(c *demo.Conn) { _ = c.Truncate() },
		"reset":             func(c *demo.Conn) { _ = c.Reset() },
		"a response":        func(c *demo.Conn) { _, _ = c.WriteString(answer) },
		"no TLS":            func(c *demo.Conn) { _, _ = c.WritePlain([]byte("GARBAGE")) },
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, w *world) {
				now := make(chan struct{})
				w.o.Script = func(c *demo.Conn) {
					if _, err := c.ReadHead(); err != nil {
						return
					}
					_, _ = c.WriteString(answer)
					<-now
					touch(c)
					c.WaitClosed()
				}
				w.build(t)
				c := w.dial(t)
				get(t, c)
				c.Keep(time.Now(), -1)
				later := time.Now().Add(time.Second)
				if got := w.up.Take(later); got != c {
					t.Fatalf("Take = %p before anything happened, want %p", got, c)
				}
				c.Keep(time.Now(), -1)
				close(now)
				eventually(t, "Take to return nil", func() bool {
					got := w.up.Take(later)
					if got != nil {
						got.Keep(time.Now(), -1)
					}
					return got == nil
				})
				if got := w.closed(t, metrics.ClosedByUpstream); got != 1 {
					t.Errorf("closed by the upstream = %d, want 1", got)
				}
			})
		})
	}
}

// What comes in one record with the response, and is more than was read of it, stays with crypto/tls. It would be the
// beginning of another caller's response.
func TestKeepRefusesWhatHasMoreThanTheResponse(t *testing.T) {
	for name, more := range map[string]func(c *demo.Conn){
		"in the same record": func(c *demo.Conn) { _, _ = c.WriteString(answer + answer) },
		"in the next record": func(c *demo.Conn) { _, _ = c.WriteString(answer); _, _ = c.WriteString(answer) },
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, w *world) {
				w.o.Script = func(c *demo.Conn) {
					if _, err := c.ReadHead(); err != nil {
						return
					}
					more(c)
					c.WaitClosed()
				}
				c := w.build(t).dial(t)
				if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, len(answer))
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatal(err)
				}
				now := time.Now()
				c.Keep(now, -1)
				if name == "in the same record" {
					if got := w.up.Take(now); got != nil {
						t.Errorf("Take = %p, want nil", got)
					}
				}
				eventually(t, "the connection not to be taken again", func() bool { // the next record may take a moment
					got := w.up.Take(now.Add(time.Second))
					if got != nil {
						got.Keep(now, -1)
					}
					return got == nil
				})
				if got := w.closed(t, metrics.ClosedByResponse) + w.closed(t, metrics.ClosedByUpstream); got != 1 {
					t.Errorf("closed = %d, want 1", got)
				}
			})
		})
	}
}

func TestTakeReturnsNoneThatWasInterrupted(t *testing.T) {
	w := newWorld(t).build(t)
	c := w.dial(t)
	get(t, c)
	now := time.Now()
	c.Keep(now, -1)
	c.Interrupt() // by one who still thinks that it carries an exchange
	if got := w.up.Take(now); got != nil {
		t.Errorf("Take = %p, want nil", got)
		got.Close(metrics.ClosedFault)
	}
}

func TestSweepClosesWhatIsDeadOrOld(t *testing.T) {
	w := newWorld(t)
	w.options.Pool = Pool{MaxIdle: 40, IdleTimeout: time.Minute}
	w.build(t)
	const each = 10
	now := time.Now()
	var all []*Conn
	for range 2 * each {
		c := w.dial(t)
		get(t, c)
		all = append(all, c)
	}
	for _, c := range all[:each] {
		c.Keep(now.Add(-time.Minute), -1)
	}
	for _, c := range all[each:] {
		c.Keep(now, -1)
	}
	w.all.Sweep(now)
	w.stats(t, each, 0)
	if got := w.closed(t, metrics.ClosedIdle); got != each {
		t.Errorf("closed as idle = %d, want %d", got, each)
	}
	w.all.Sweep(now.Add(time.Second))
	w.stats(t, each, 0)
	w.server.Cut()
	for _, c := range all[each:] {
		eventually(t, "the connection's end", c.Gone)
	}
	w.all.Sweep(now.Add(2*time.Second - 1)) // to ask is a system call, and sweeps may come a hundred times a second
	w.stats(t, each, 0)
	w.all.Sweep(now.Add(2 * time.Second))
	w.stats(t, 0, 0)
	if got := w.closed(t, metrics.ClosedByUpstream); got != each {
		t.Errorf("closed by the upstream = %d, want %d", got, each)
	}
}

func TestSweepComesToAllInTheEnd(t *testing.T) {
	w := newWorld(t)
	w.options.Pool = Pool{MaxIdle: 40}
	w.build(t)
	var all []*Conn
	for range 40 {
		all = append(all, w.dial(t))
	}
	now := time.Now()
	for _, c := range all {
		c.Keep(now, -1)
	}
	w.up.o.Pool.IdleTimeout = time.Second
	for range 3 {
		w.all.Sweep(now.Add(time.Second))
	}
	w.stats(t, 0, 0)
}

func TestRetireKeepsNone(t *testing.T) {
	w := newWorld(t).build(t)
	now := time.Now()
	idle, busy := w.dial(t), w.dial(t)
	get(t, idle)
	idle.Keep(now, -1)
	if w.all.Overdue(now.Add(time.Hour)) {
		t.Error("Overdue() = true before Retire")
	}
	w.all.Retire(now.Add(time.Minute))
	w.stats(t, 0, 1)
	eventually(t, "the server to see the end", func() bool { return w.server.Stats().Open == 1 })
	if got := len(get(t, busy)); got == 0 {
		t.Error("a busy connection got no answer after Retire")
	}
	if w.all.Overdue(now.Add(time.Minute-1)) || !w.all.Overdue(now.Add(time.Minute)) {
		t.Error("Overdue() does not begin at the time that Retire was told")
	}
	busy.Keep(now, -1)
	w.stats(t, 0, 0)
	if c := w.up.Take(now); c != nil {
		t.Errorf("Take after Retire = %p, want nil", c)
	}
	if got := w.closed(t, metrics.ClosedRetired); got != 2 {
		t.Errorf("closed for retirement = %d, want 2", got)
	}
}

func TestRetireWithoutAnEnd(t *testing.T) {
	w := newWorld(t).build(t)
	w.all.Retire(time.Time{})
	if w.all.Overdue(time.Now().Add(1000 * time.Hour)) {
		t.Error("Overdue() = true, want no end")
	}
}

func TestGateBoundsMaxActive(t *testing.T) {
	w := newWorld(t)
	w.options.Pool = Pool{MaxIdle: 1, MaxActive: 3}
	w.build(t)
	if g := w.up.Gate(); g == nil || g.Limit() != 3 {
		t.Errorf("Gate() = %v, want one for 3", g)
	}
	if g := newWorld(t).build(t).up.Gate(); g != nil {
		t.Errorf("Gate() = %v without max_active, want nil", g)
	}
}

func TestPoolIsSharedByMany(t *testing.T) {
	w := newWorld(t)
	w.options.Pool.MaxIdle = 4
	w.o.Script = func(c *demo.Conn) { c.Answer(answer) }
	w.build(t)
	stop, swept := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swept)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
				w.all.Sweep(time.Now().Add(time.Second))
			}
		}
	}()
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 50 {
				c := w.up.Take(time.Now())
				if c == nil {
					var err error
					if c, err = w.up.Dial(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
				if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
					t.Error(err)
				}
				b := make([]byte, 256)
				if n, err := c.Read(b); string(b[:n]) != answer || err != nil {
					t.Errorf("Read = %q, %v; want %q", b[:n], err, answer)
				}
				c.Keep(time.Now(), -1)
			}
		})
	}
	g.Wait()
	close(stop)
	<-swept
	if idle, active := w.all.Stats(); idle < 1 || idle > 4 || active != 0 {
		t.Errorf("Stats() = %d, %d; want 1 to 4, 0", idle, active)
	}
}

func TestReadMoreTakesWhatIsThere(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		block := strings.Repeat("x", 16<<10)
		const blocks = 8
		w.o.Script = func(c *demo.Conn) {
			if _, err := c.ReadHead(); err != nil {
				return
			}
			for range blocks {
				_, _ = c.WriteString(block)
			}
			c.WaitClosed()
		}
		c := w.build(t).dial(t)
		defer c.Close(metrics.ClosedByResponse)
		if n, err := c.ReadMore(make([]byte, 8)); n != 0 || err != nil {
			t.Errorf("ReadMore with nothing there = %d, %v; want 0, nil", n, err)
		}
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 128<<10)
		total, more := 0, 0
		for total < blocks*len(block) {
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			ready := c.Ready()
			m, err := c.ReadMore(b[n:])
			if err != nil || ready != (m > 0) {
				t.Fatalf("Ready() = %v, ReadMore = %d, %v", ready, m, err)
			}
			total += n + m
			more += m
		}
		if total != blocks*len(block) {
			t.Errorf("read %d bytes, want %d", total, blocks*len(block))
		}
		t.Logf("%d of %d bytes came with ReadMore", more, total)
	})
}

func TestCloseWriteLeavesTheOtherDirection(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		w.o.Script = func(c *demo.Conn) {
			sent, _ := io.ReadAll(c.Reader()) // ends with our close_notify
			_, _ = fmt.Fprintf(c, "%d bytes", len(sent))
		}
		c := w.build(t).dial(t)
		defer c.Close(metrics.ClosedTunnel)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if want := "5 bytes"; string(got) != want || err != nil {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
	})
}

func TestInterruptEndsAnExchange(t *testing.T) {
	w := newWorld(t)
	w.o.Script = func(c *demo.Conn) { <-c.Done() } // neither reads nor writes
	c := w.build(t).dial(t)
	defer c.Close(metrics.ClosedFault)
	c.Apart(true)
	read, wrote := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	go func() {
		_, err := c.Write(make([]byte, 64<<20))
		wrote <- err
	}()
	eventually(t, "WriteBlocked", c.WriteBlocked)
	c.Nudge()
	if c.Gone() {
		t.Error("Gone() = true of a server that is there")
	}
	c.Interrupt()
	for name, ch := range map[string]chan error{"Read": read, "Write": wrote} {
		select {
		case err := <-ch:
			if err == nil || !strings.Contains(err.Error(), "interrupted") {
				t.Errorf("%s = %v, want interrupted", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s does not end", name)
		}
	}
}
