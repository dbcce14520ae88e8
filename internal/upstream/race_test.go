package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// way is what becomes of a connection to an address.
type way struct {
	after time.Duration
	err   error // nil: it comes about
	sure  bool  // it is too late to give it up
}

var (
	errRefused = errors.New("refused")
	hangs      = way{after: 5 * time.Second, err: context.DeadlineExceeded} // for all of timeout.connect
)

// course is who can be reached, and how. Nobody closes a connection that does not win.
type course struct {
	ways map[string]way
	open atomic.Int32
}

func (c *course) reach(e *Endpoint, ctx context.Context) (net.Conn, error) {
	w := c.ways[e.Address()]
	if w.sure {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-time.After(w.after):
	case <-ctx.Done():
		return nil, fault.Classify(fault.PhaseConnect, context.Cause(ctx))
	}
	switch {
	case w.err == nil:
		c.open.Add(1)
		return closing{c}, nil
	case errors.Is(w.err, errRefused):
		return nil, fault.Classify(fault.PhaseConnect, syscall.ECONNREFUSED)
	default:
		return nil, fault.Classify(fault.PhaseConnect, w.err)
	}
}

type closing struct{ c *course }

func (c closing) Close() error                     { c.c.open.Add(-1); return nil }
func (closing) Read([]byte) (int, error)           { return 0, net.ErrClosed }
func (closing) Write([]byte) (int, error)          { return 0, net.ErrClosed }
func (closing) LocalAddr() net.Addr                { return nil }
func (closing) RemoteAddr() net.Addr               { return nil }
func (closing) SetDeadline(time.Time) error        { return nil }
func (closing) SetReadDeadline(t time.Time) error  { return nil }
func (closing) SetWriteDeadline(t time.Time) error { return nil }

const msec = time.Millisecond

func TestASecondEndpointIsTriedBesideTheFirst(t *testing.T) {
	const a, b, c = "10.0.0.1:443", "10.0.0.2:443", "10.0.0.3:443"
	at := func(d time.Duration) way { return way{after: d} }
	for _, tt := range []struct {
		name     string
		ways     map[string]way // of those that are not at once there
		change   func(o *Options)
		leave    time.Duration // when the caller does; 0: never
		limit    time.Duration // retry.try_timeout; 0: none
		winner   string        // "": none
		token    fault.Token   // then
		after    time.Duration
		failures string // of each, and who was not tried
	}{
		{name: "the first is in time", ways: map[string]way{a: at(249 * msec)}, winner: a, after: 249 * msec, failures: "0 - -"},
		{name: "it is refused in time", ways: map[string]way{a: {after: 200 * msec, err: errRefused}}, token: fault.ConnectionRefused, after: 200 * msec, failures: "0 - -"},
		{name: "it hangs", ways: map[string]way{a: hangs}, winner: b, after: 250 * msec, failures: "1 0 -"},
		{name: "it is late and wins", ways: map[string]way{a: at(300 * msec), b: at(100 * msec)}, winner: a, after: 300 * msec, failures: "0 0 -"},
		{name: "it is late and loses", ways: map[string]way{a: at(400 * msec), b: at(100 * msec)}, winner: b, after: 350 * msec, failures: "1 0 -"},
		{name: "both are there", ways: map[string]way{a: {after: 400 * msec, sure: true}, b: at(100 * msec)}, winner: a, after: 400 * msec, failures: "0 0 -"},
		{name: "it fails late", ways: map[string]way{a: {after: 300 * msec, err: errRefused}, b: at(100 * msec)}, winner: b, after: 350 * msec, failures: "1 0 -"},
		{name: "the second is refused", ways: map[string]way{a: hangs, b: {after: 0, err: errRefused}}, winner: c, after: 250 * msec, failures: "1 1 0"},
		{name: "two hang", ways: map[string]way{a: hangs, b: hangs}, winner: c, after: 500 * msec, failures: "1 1 0"},
		{name: "two hang, and the first comes after all", ways: map[string]way{a: at(550 * msec), b: hangs, c: hangs}, winner: a, after: 550 * msec, failures: "0 0 0"},
		{name: "all hang", ways: map[string]way{a: hangs, b: hangs, c: hangs}, token: fault.ConnectionTimeout, after: 5500 * msec, failures: "0 1 1"},
		{name: "the others are refused", ways: map[string]way{a: hangs, b: {after: 0, err: errRefused}, c: {after: 0, err: errRefused}}, token: fault.ConnectionTimeout, after: 5 * time.Second, failures: "0 1 1"},
		{name: "the caller leaves", ways: map[string]way{a: hangs, b: hangs, c: hangs}, leave: time.Second, token: fault.CallerGone, after: time.Second, failures: "0 0 0"},
		{name: "the time for a try is over", ways: map[string]way{a: hangs, b: hangs, c: hangs}, limit: time.Second, token: fault.ConnectionTimeout, after: time.Second, failures: "0 0 0"},
		{name: "the second is another server where order decides", ways: map[string]way{a: hangs}, change: func(o *Options) { o.Balance = First },
			winner: b, after: 1500 * msec, failures: "1 0 -"},
		{name: "a lost packet is mended before a backup begins", ways: map[string]way{a: at(1100 * msec)},
			change: func(o *Options) { o.Servers[1].Backup, o.Servers[2].Backup = true, true }, winner: a, after: 1100 * msec, failures: "0 - -"},
		{name: "a backup begins", ways: map[string]way{a: hangs},
			change: func(o *Options) { o.Servers[1].Backup, o.Servers[2].Backup = true, true }, winner: b, after: 1500 * msec, failures: "1 0 -"},
		{name: "the second has no place", ways: map[string]way{a: at(400 * msec)}, change: func(o *Options) { o.Pool.MaxActive = 1 },
			winner: a, after: 400 * msec, failures: "0 - -"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := Options{Balance: RoundRobin}
				for _, address := range []string{a, b, c} {
					o.Servers = append(o.Servers, Server{Address: address, ServerName: "localhost"})
				}
				if tt.change != nil {
					tt.change(&o)
				}
				u := offline(t, o)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				tried := new(Tried)
				try, f := u.Pick(ctx, time.Now(), tried)
				if f != nil || try.Endpoint.Address() != a {
					t.Fatalf("Pick = %v, %v; want %s", try.Endpoint, f, a)
				}
				if o.Pool.MaxActive > 0 {
					for _, e := range *u.list.Load() {
						e.Gate().TryEnter()
					}
				}
				if tt.limit > 0 {
					var done context.CancelFunc
					ctx, done = context.WithTimeoutCause(ctx, tt.limit, fault.New(fault.ConnectionTimeout, nil))
					defer done()
				}
				if tt.leave > 0 {
					time.AfterFunc(tt.leave, cancel)
				}
				road, start := &course{ways: tt.ways}, time.Now()
				won, nc, err := (&race{u, tried, road.reach}).run(ctx, try)
				if got := time.Since(start); got != tt.after {
					t.Errorf("it took %v, want %v", got, tt.after)
				}
				winner := tt.winner
				if winner == "" {
					winner = a
				}
				if won.Endpoint.Address() != winner || (nc != nil) != (tt.winner != "") {
					t.Errorf("the try is with %s, connection %v; want %s", won.Endpoint.Address(), nc, winner)
				}
				if token := fault.Classify(fault.PhaseConnect, err); err != nil && token.Token != tt.token || err == nil && tt.token != "" {
					t.Errorf("error = %v, want %q", err, tt.token)
				}
				if nc != nil {
					nc.Close()
				}
				if n := road.open.Load(); n != 0 {
					t.Errorf("%d connections of others are open", n)
				}
				won.End(time.Now(), Abandoned)
				var failures []string
				for _, s := range u.Endpoints() {
					if s.Outstanding != 0 {
						t.Errorf("%d exchanges still use %s", s.Outstanding, s.Address)
					}
					n := "-"
					for _, m := range tried.members() {
						if m.ID == s.Address {
							n = fmt.Sprint(s.Failures)
						}
					}
					failures = append(failures, n)
				}
				if got := strings.Join(failures, " "); got != tt.failures {
					t.Errorf("failures = %s, want %s", got, tt.failures)
				}
			})
		})
	}
}

// The place of the one that was overtaken is free again, and the winner has one.
func TestARaceHandsThePlaceOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := offline(t, Options{Balance: RoundRobin, Pool: Pool{MaxActive: 1}, Servers: []Server{{Address: "10.0.0.1:443"}, {Address: "10.0.0.2:443"}}})
		tried := new(Tried)
		try, f := u.Pick(t.Context(), time.Now(), tried)
		if f != nil || !try.Endpoint.Gate().TryEnter() {
			t.Fatal(f)
		}
		road := &course{ways: map[string]way{"10.0.0.1:443": hangs}}
		won, nc, err := (&race{u, tried, road.reach}).run(t.Context(), try)
		if err != nil || try.Endpoint.Gate().InUse() != 0 || won.Endpoint.Gate().InUse() != 1 {
			t.Errorf("error %v, places taken %d and %d; want 0 and 1", err, try.Endpoint.Gate().InUse(), won.Endpoint.Gate().InUse())
		}
		nc.Close()
		won.End(time.Now(), Success)
	})
}

func TestAnEndpointThatNeverAnswersIsPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := offline(t, Options{Balance: First, Servers: []Server{{Address: "a.test:443"}}, DNS: &zone{addrs: map[string]string{"a.test": "2001:db8::1 10.0.0.1"}}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go u.Run(ctx, nil)
		road := &course{ways: map[string]way{"a.test@[2001:db8::1]:443": hangs}}
		var took []time.Duration
		for range 7 {
			tried := new(Tried)
			try, f := u.Pick(ctx, time.Now(), tried)
			if f != nil {
				t.Fatal(f)
			}
			start := time.Now()
			won, nc, err := (&race{u, tried, road.reach}).run(ctx, try)
			if err != nil || won.Endpoint.Address() != "a.test@10.0.0.1:443" {
				t.Fatalf("the try is with %s, %v; want the address that answers", won.Endpoint.Address(), err)
			}
			took = append(took, time.Since(start))
			nc.Close()
			won.End(time.Now(), Success)
		}
		if got, want := fmt.Sprint(took), "[250ms 250ms 250ms 250ms 250ms 0s 0s]"; got != want {
			t.Errorf("connections took %s, want %s", got, want)
		}
	})
}

// A queue of connections that nobody accepts, and that is full, is what a blackhole looks like.
func TestDialGetsAroundABlackhole(t *testing.T) {
	hole := blackhole(t)
	f := newFleet(t, 1, nil, func(f *fleet, o *Options) {
		o.Balance = RoundRobin
		o.Servers = append([]Server{{Address: hole, ServerName: "localhost"}}, o.Servers...)
	})
	tried := new(Tried)
	try, fa := f.all.Pick(t.Context(), time.Now(), tried)
	if fa != nil || try.Endpoint.Address() != hole {
		t.Fatalf("Pick = %v, %v; want the blackhole", try.Endpoint.Address(), fa)
	}
	c, err := f.all.Dial(t.Context(), &try, tried)
	if err != nil {
		t.Fatal(err)
	}
	if c.Endpoint() != try.Endpoint || c.Endpoint().Address() != f.servers[0].Addr() || tried.Len() != 2 {
		t.Errorf("connected to %s, the try is with %s", c.Endpoint().Address(), try.Endpoint.Address())
	}
	if len(get(t, c)) == 0 {
		t.Error("no answer")
	}
	c.Keep(time.Now(), -1)
	try.End(time.Now(), Success)
	if s := f.state(t, hole); s.Failures != 1 || s.Outstanding != 0 {
		t.Errorf("the blackhole is %+v, want one failure", s)
	}
}

// blackhole is an address where connections neither come about nor fail.
func blackhole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 4 {
		d := net.Dialer{Timeout: 50 * msec} // one fits, perhaps two
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this system accepts more connections than it was told to")
	return ""
}
