package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// watch checks each endpoint on a goroutine of its own until ctx is done or the endpoint has left.
func (u *Upstream) watch(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	watched := make(map[*member]context.CancelFunc)
	for {
		current := make(map[*member]bool)
		for _, m := range u.set.Endpoints() {
			current[m] = true
			if watched[m] == nil {
				ctx, cancel := context.WithCancel(ctx)
				watched[m] = cancel
				group.Go(func() { u.checkAgain(ctx, m) })
			}
		}
		for m, cancel := range watched {
			if !current[m] {
				cancel()
				delete(watched, m)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range watched {
				cancel()
			}
			return
		case <-u.fresh:
		}
	}
}

// checkAgain checks one endpoint, at once and from then on in intervals that differ by up to a tenth, so that neither
// endpoints nor those who ask them come to act in step.
func (u *Upstream) checkAgain(ctx context.Context, m *member) {
	o := &u.o.Check
	healthy, row := true, 0 // checks in a row that say otherwise
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(o.Interval + time.Duration((rand.Float64()-0.5)/5*float64(o.Interval)))
		err := m.Data.check(ctx)
		if ctx.Err() != nil {
			return
		}
		u.o.Metrics.HealthCheck(err == nil)
		m.Data.checked.Store(&Checked{time.Now(), err})
		if row++; (err == nil) == healthy {
			row = 0
			continue
		}
		now := time.Now()
		switch {
		case healthy && row >= o.UnhealthyAfter:
			m.SetHealthy(now, false)
			u.tell(Event{Kind: EndpointUnhealthy, At: now, Endpoint: m.ID, Err: err})
		case !healthy && row >= o.HealthyAfter:
			m.SetHealthy(now, true)
			u.tell(Event{Kind: EndpointHealthy, At: now, Endpoint: m.ID})
		default:
			continue
		}
		healthy, row = !healthy, 0
	}
}

// check asks the endpoint how it is, as an exchange would: with our certificate and on a kept connection, if there is one.
// Exchanges have the places of MaxActive to themselves.
func (e *Endpoint) check(ctx context.Context) error {
	o := &e.o.Check
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("no answer to GET %s within %v", o.Path, o.Timeout))
	defer cancel()
	status := 0
	c := e.Take(time.Now())
	err := errUnanswered
	if c != nil {
		status, err = c.ask(ctx)
	}
	if errors.Is(err, errUnanswered) { // there was none, or it had been closed
		if c, err = e.Dial(ctx); err != nil {
			if f, ok := errors.AsType[*fault.Fault](err); ok {
				e.o.Metrics.HandshakeError(string(f.Token))
			}
			return err
		}
		status, err = c.ask(ctx)
	}
	if err == nil && !slices.Contains(o.Expect, status) {
		err = fmt.Errorf("GET %s: status %d", o.Path, status)
	}
	return err
}

// errUnanswered is the end of a connection before the response began.
var errUnanswered = errors.New("the connection ended before a response began")

// ask makes the request of a check, and keeps or closes the connection.
func (c *Conn) ask(ctx context.Context) (status int, err error) {
	unwatch := context.AfterFunc(ctx, c.Interrupt)
	a := reply{c: c, buf: make([]byte, maxCheckHead+1)}
	_, err = c.Write(c.e.checkRequest())
	if err == nil {
		err = a.head()
	}
	keep := err == nil && a.body()
	if !unwatch() {
		keep = false
		if err != nil {
			err = context.Cause(ctx)
		}
	}
	if !keep {
		why := metrics.ClosedByResponse
		if err != nil {
			why = metrics.ClosedFault
		}
		c.Close(why)
		return a.resp.Status, err
	}
	promise := time.Duration(-1)
	if s := a.resp.KeepAliveTimeout; s >= 0 {
		promise = time.Duration(s) * time.Second
	}
	c.Keep(time.Now(), promise)
	return a.resp.Status, nil
}

// What a check reads of an answer.
const (
	maxCheckHead = 16 << 10
	maxCheckBody = 64 << 10 // of more than that, the connection is closed
)

func (e *Endpoint) checkRequest() []byte {
	host := e.server.Host
	if host == "" {
		host = e.o.Check.Host
	}
	if host == "" {
		host = e.server.ServerName
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: mtls-proxy\r\nAccept: */*\r\n\r\n", e.o.Check.Path, host)
}

// reply is what comes back.
type reply struct {
	c    *Conn
	resp http1.Response
	buf  []byte
	r, w int // what was read and not taken
}

func (a *reply) more() error {
	if a.r == a.w {
		a.r, a.w = 0, 0
	}
	n, err := a.c.Read(a.buf[a.w:])
	a.w += n
	if n > 0 {
		return nil
	}
	return err
}

// head reads until the head of a final response is there.
func (a *reply) head() error {
	limits := http1.Limits{MaxHead: maxCheckHead}
	interims := http1.Interims(0)
	for first := true; ; {
		n, err := a.resp.Parse(a.buf[a.r:a.w], false, &limits)
		switch {
		case err != nil:
			return fmt.Errorf("the answer is not HTTP/1.x that we understand: %w", err)
		case n > 0:
			a.r += n
			first = false
			if a.resp.Status != 101 && !a.resp.Interim() {
				return nil
			}
			if a.resp.Status == 101 {
				return errors.New("the answer is an upgrade that nobody asked for")
			}
			if err := interims.Pass(); err != nil {
				return fmt.Errorf("the answer is not HTTP/1.x that we understand: %w", err)
			}
			a.w = copy(a.buf, a.buf[a.r:a.w])
			a.r = 0
			a.resp.Reset()
			continue
		}
		if err := a.more(); err != nil {
			ended := errors.Is(err, io.EOF) || errors.Is(err, conn.ErrTruncated)
			f := a.c.Fault(fault.PhaseReceive, err)
			if first && a.w == 0 && (ended || f.Token == fault.ResponseReset) {
				return errUnanswered
			}
			return f
		}
	}
}

// body reads the body and reports whether the connection is fit for another exchange.
func (a *reply) body() bool {
	if a.resp.Close || a.resp.ConnectionAuth {
		return false
	}
	switch a.resp.Framing {
	case http1.NoBody:
	case http1.Length:
		left := a.resp.ContentLength
		if left > maxCheckBody {
			return false
		}
		for {
			n := min(int64(a.w-a.r), left)
			a.r += int(n)
			if left -= n; left == 0 {
				break
			}
			if a.more() != nil {
				return false
			}
		}
	case http1.Chunked:
		if !a.chunks() {
			return false
		}
	case http1.UntilClose:
		return false
	}
	return a.r == a.w
}

func (a *reply) chunks() bool {
	d := http1.ChunkReader{Response: true}
	for total := 0; ; {
		_, n, err := d.Next(a.buf[a.r:a.w], nil)
		a.r += n
		if total += n; err != nil || total > maxCheckBody {
			return false
		}
		if d.Done() {
			return true
		}
		if a.r == a.w && a.more() != nil {
			return false
		}
	}
}
