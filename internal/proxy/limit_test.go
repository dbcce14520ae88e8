package proxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// holding answers "/held" when release is closed, and everything else at once; arrived tells of each held request.
func holding() (o demo.UpstreamOptions, arrived chan bool, release chan struct{}) {
	arrived, release = make(chan bool, 100), make(chan struct{})
	o.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/held") {
			arrived <- true
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
	return o, arrived, release
}

func TestRateLimit(t *testing.T) {
	for name, c := range map[string]struct{ config, want string }{
		"default":    {"[rate_limit]\n", "default"},
		"configured": {"[rate_limit]\nrequests_per_second = 0.1\nburst = 3\n", `key \"all\"`},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: c.config, upstream: answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")})
			caller := k.dial()
			var a answer
			for range 2000 {
				if a = caller.send(get("/")).answer(); a.StatusCode != 200 {
					break
				}
			}
			a.problem(k, fault.RateLimited)
			after, err := strconv.Atoi(a.Header.Get("Retry-After"))
			if err != nil || after < 1 || name == "configured" && after < 2 {
				t.Errorf("Retry-After: %q", a.Header.Get("Retry-After"))
			}
			if !strings.Contains(a.text, c.want) || !strings.Contains(a.text, "rate_limit.requests_per_second") {
				t.Errorf("no word of %s: %s", c.want, a.text)
			}
			if strings.Contains(a.text, "it is the default") != (name == "default") {
				t.Errorf("whether it is the default: %s", a.text)
			}
			k.until("counted", func() bool { return k.metric(`mtls_proxy_rate_limited_total{key="all"}`) >= 1 })
			if name == "configured" {
				k.until("recorded", func() bool { return len(k.records()) > 0 })
				k.server.answered(k)
			}
		})
	}
}

// answered is what the probe needs while callers are refused.
func (s *Server) answered(k *kit) {
	k.Helper()
	if err := s.Probe(k.Context()); err != nil {
		k.Errorf("Probe() = %v", err)
	}
}

func TestConcurrencyLimits(t *testing.T) {
	for name, s := range map[string]setup{
		"limits.max_concurrent_requests":   {config: "[limits]\nmax_concurrent_requests = 2\nqueue_timeout = \"20ms\"\n"},
		"upstream.default.pool.max_active": {config: "[limits]\nqueue_timeout = \"20ms\"\n", settings: "pool.max_active = 2"},
	} {
		t.Run(name, func(t *testing.T) {
			var arrived chan bool
			var release chan struct{}
			s.upstream, arrived, release = holding()
			k := start(t, s)
			first, second := k.dial().send(get("/held")), k.dial().send(get("/held"))
			take(k, "the first", arrived)
			take(k, "the second", arrived)
			c := k.dial()
			a := c.send(get("/")).answer().problem(k, fault.ConcurrencyLimit)
			if a.Header.Get("Retry-After") != "1" || !strings.Contains(a.text, name) {
				t.Errorf("Retry-After %q, %s", a.Header.Get("Retry-After"), a.text)
			}
			k.server.answered(k)
			close(release)
			first.answer().ok(k)
			second.answer().ok(k)
			c.send(get("/")).answer().ok(k)
			if n := k.metric(`mtls_proxy_errors_total{blame="proxy",fault="concurrency_limit"}`); n != 1 {
				t.Errorf("%v faults counted", n)
			}
		})
	}
}

// One who waits gets the next place, and one who leaves while waiting takes none.
func TestQueue(t *testing.T) {
	o, arrived, release := holding()
	k := start(t, setup{upstream: o, config: "[limits]\nmax_concurrent_requests = 1\nqueue_timeout = \"20s\"\n"})
	gate := k.store.Current().Limits.Requests
	first := k.dial().send(get("/held"))
	take(k, "the first", arrived)
	leaves, waits := k.dial().send(get("/leaves")), k.dial()
	k.until("one waits", func() bool { return gate.Queued() == 1 })
	waits.send(get("/waits"))
	k.until("two wait", func() bool { return gate.Queued() == 2 })
	_ = leaves.Close()
	k.until("one waits again", func() bool { return gate.Queued() == 1 })
	k.faulted(fault.CallerGone, 499)
	close(release)
	first.answer().ok(k)
	waits.answer().ok(k)
}

// Streams do not take a place among the requests once they have begun.
func TestStreamsLeaveTheCount(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_concurrent_requests = 1\nqueue_timeout = \"1ms\"\n", timeout: longTunnel})
	stream := k.dial().send(get("/sse?n=2&every=1h"))
	stream.rawHead()
	k.tunnel()
	k.dial().send(get("/")).answer().ok(k)
}

func TestMaxConnections(t *testing.T) {
	o, arrived, release := holding()
	k := start(t, setup{upstream: o, config: "[limits]\nmax_connections = 3\n"})
	idle, busy := k.dial(), k.dial().send(get("/held"))
	idle.send(get("/")).answer().ok(k)
	take(k, "the busy one's request", arrived)
	clock := k.server.clock.Load()
	k.until("time passes", func() bool { return k.server.clock.Load() > clock+int64(sweepLeast) })
	younger := k.dial()
	younger.send(get("/")).answer().ok(k)
	k.until("both are idle", func() bool { return k.idle()+k.active() > 0 && k.server.Stats().ActiveExchanges == 1 })

	k.dial().send(get("/held")) // takes the place of the oldest idle one
	take(k, "the newcomer's request", arrived)
	idle.closed()
	younger.send(get("/held"))
	take(k, "the younger one's request", arrived)

	// Everyone is busy: a newcomer is told so, the probe is not.
	for range 2 {
		c := k.dial()
		if a := c.answer().problem(k, fault.ConnectionLimit); a.Header.Get("Retry-After") != "1" || !a.Close {
			t.Errorf("Retry-After %q, close %v", a.Header.Get("Retry-After"), a.Close)
		}
		_ = c.Close()
	}
	k.server.answered(k)
	if n := k.metric(`mtls_proxy_connections_refused_total{listener="http",reason="connection_limit"}`); n != 2 {
		t.Errorf("%v refusals counted, want 2", n)
	}
	close(release)
	busy.answer().ok(k)
}

func TestConnectionsThatCameAndWent(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_connections = 2\n"})
	for range 20 {
		c := k.dial()
		c.send(get("/", "Connection: close")).answer().ok(k)
		c.ended()
	}
	for range 20 { // who says nothing gives way
		c := k.dial()
		c.send(get("/")).answer().ok(k)
	}
}

// A place is promised once: who is on his way out is not evicted for somebody else.
func TestWhoIsEvictedIsNotCountedOnAgain(t *testing.T) {
	for name, end := range map[string]func(k *kit, c *caller){
		"evicted": func(k *kit, _ *caller) {
			for x := range k.server.sessions {
				if !x.cancel(x.word.Load(), cancelEvict) {
					k.Error("not cancelled")
				}
			}
		},
		"gone": func(_ *kit, c *caller) { c.half() },
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: "[limits]\nmax_connections = 1\n"})
			c := k.parked()
			k.server.mu.Lock() // it cannot be forgotten meanwhile
			defer k.server.mu.Unlock()
			end(k, c)
			c.ended()
			gate := k.store.Current().Limits.Connections
			k.until("its place is free", gate.TryEnter)
			defer gate.Leave()
			for x := range k.server.sessions {
				if x.counted.Load() && x.reason().evictable() {
					t.Errorf("a session in phase %d, which has given its place back, may be evicted", x.reason())
				}
			}
		})
	}
}

func TestProbe(t *testing.T) {
	for name, listen := range map[string]func(*kit) (net.Listener, error){
		"IPv4 wildcard": func(*kit) (net.Listener, error) { return net.Listen("tcp4", "0.0.0.0:0") },
		"IPv6 wildcard": func(*kit) (net.Listener, error) { return net.Listen("tcp", "[::]:0") },
		"IPv6":          func(*kit) (net.Listener, error) { return net.Listen("tcp6", "[::1]:0") },
		"Unix":          func(k *kit) (net.Listener, error) { return net.Listen("unix", k.dir+"/probe") },
		"abstract":      func(k *kit) (net.Listener, error) { return net.Listen("unix", fmt.Sprintf("@%s/probe", k.dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{config: "[[route]]\nmethods = [\"DELETE\"]\n[rate_limit]\nrequests_per_second = 0.001\nburst = 1\n"})
			ln, err := listen(k)
			if err != nil {
				t.Skip(err)
			}
			k.stopServing() // what is probed is the socket that serves
			k.serve("http", ln)
			k.until("it serves", func() bool { return k.server.Probe(k.Context()) == nil })
			for range 3 {
				k.server.answered(k)
			}
			if n := k.server.Stats().ActiveConnections; n != 0 {
				t.Errorf("%d connections of callers, want 0", n)
			}
			if text := grep(k.scrape(), "mtls_proxy_requests_total{"); text != "" {
				t.Errorf("probes were counted: %s", text)
			}
		})
	}
	t.Run("nothing is served", func(t *testing.T) {
		k := start(t, setup{})
		k.until("it serves", func() bool { return k.server.Probe(k.Context()) == nil })
		k.stopServing()
		if err := k.server.Probe(k.Context()); err == nil {
			t.Error("Probe() = nil")
		}
	})
}

// Nobody but the probe is taken for it.
func TestProbeIsNotForCallers(t *testing.T) {
	k := start(t, setup{})
	path := k.unix()
	for _, c := range []*caller{k.dial(), k.connect("unix", path)} {
		c.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").answer().ok(k)
	}
}

func TestWhoIsEvictedFirst(t *testing.T) {
	on := func(owner string, since int64, p phase, number uint64) evictable {
		x := &session{number: number}
		if p == phaseIdle || p == phaseParked {
			x.turn.Store(1) // it has been served before
		}
		return evictable{x: x, word: uint64(p), owner: owner, since: since}
	}
	inOrder := []evictable{
		on("many", 8, phaseLinger, 14), // has its last answer
		on("many", 1, phaseIdle, 4),    // has been idle for longest
		on("many", 2, phaseFresh, 2),
		on("many", 2, phaseFreshParked, 3),
		on("many", 2, phaseParked, 1), // has been served before
		on("many", 2, phaseIdle, 5),
		on("many", 3, phaseHead, 6), // has a part of a head there
		on("few", 0, phaseIdle, 7),
		on("few", 1, phaseIdle, 8),
		on("one", 2, phaseIdle, 9),
		on("another", 3, phaseHead, 10),
	}
	left := slices.Clone(inOrder)
	left = append(left, on("many", 9, phaseHead, 11), on("many", 9, phaseHead, 12), on("many", 9, phaseHead, 13)) // it stays the one with the most
	for i := range inOrder {
		if inOrder[i].owner != "many" {
			left = slices.DeleteFunc(left, func(e evictable) bool { return e.owner == "many" })
		}
		rand.Shuffle(len(left), func(a, b int) { left[a], left[b] = left[b], left[a] })
		first, ok := firstToGo(left, "newcomer")
		if !ok || first.x != inOrder[i].x {
			t.Fatalf("number %d goes as the %dth, want number %d", first.x.number, i+1, inOrder[i].x.number)
		}
		left = slices.DeleteFunc(left, func(e evictable) bool { return e.x == first.x })
	}
}

// A caller that holds all places with incomplete heads, and reconnects for each that it loses, does not keep others out.
func TestUnfinishedHeadsGiveWay(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_connections = 4\n"})
	hold := func() *caller {
		c := k.dial().send("G")
		return c
	}
	held := make([]*caller, 0, 100)
	for range 4 {
		held = append(held, hold())
	}
	k.until("all places are taken", func() bool { return k.store.Current().Limits.Connections.InUse() == 4 })
	for range 20 {
		c := k.dial()
		c.send(get("/")).answer().ok(k)
		_ = c.Close()
		held = append(held, hold())
	}
	a := held[0].answer()
	a.problem(k, fault.ConnectionLimit)
	if !strings.Contains(a.text, "the rest of this request's head") {
		t.Errorf("the caller that lost its place got %s", a.text)
	}
}

// Nor does a caller that leaves its last answer unread.
func TestCallersThatReadTheirLastAnswerGiveWay(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_connections = 4\n"})
	refused := func() { k.dial().send("no request\r\n\r\n").headTo(http.MethodGet).is(k, http.StatusBadRequest) }
	for range 4 {
		refused()
	}
	for range 20 {
		c := k.dial()
		c.send(get("/")).answer().ok(k)
		_ = c.Close()
		refused()
	}
}

// A caller with as many places as another, the ones just freed included, gets none of its places.
func TestWhoseNewcomersGetNoPlace(t *testing.T) {
	on := func(owner string, since int64, leaving bool) evictable {
		return evictable{x: new(session), owner: owner, since: since, leaving: leaving}
	}
	for name, c := range map[string]struct {
		newcomer string
		all      []evictable
		want     string // the owner that gives a place up; "": none
	}{
		"one that has none":             {"c", []evictable{on("a", 1, false), on("b", 2, false)}, "a"},
		"one that has as many":          {"b", []evictable{on("a", 1, false), on("b", 2, false)}, "b"},
		"one whose places are free now": {"b", []evictable{on("a", 1, false), on("b", 2, true)}, ""},
		"one that has fewer":            {"b", []evictable{on("a", 1, false), on("a", 2, false), on("b", 0, false)}, "a"},
		"one that has more":             {"b", []evictable{on("a", 1, false), on("b", 2, false), on("b", 3, true)}, "b"},
	} {
		first, ok := firstToGo(c.all, c.newcomer)
		if ok != (c.want != "") || first.owner != c.want {
			t.Errorf("%s: %q gives a place up, %v; want %q", name, first.owner, ok, c.want)
		}
	}
}

// Callers of this host have one address, so their user tells them apart when places are short.
func TestAnotherUsersFloodTakesNoConnection(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_connections = 4\n"})
	kept := k.dial()
	kept.send(get("/")).answer().ok(k) // from now on it is the one that has waited for longest
	for range 20 {
		k.connectAs(4711, "tcp", k.address).send("G")
	}
	k.until("all places are taken", func() bool { return k.store.Current().Limits.Connections.InUse() == 4 })
	k.until("those without a place have gone", func() bool { return k.server.Stats().ActiveConnections == 4 })
	kept.send(get("/")).answer().ok(k)
}
