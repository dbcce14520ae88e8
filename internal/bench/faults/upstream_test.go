//go:build linux

package faults

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// stage is a proxy with what is behind it.
type stage struct {
	*testing.T
	endpoints []*endpoint
	seen      *ledger
	proxy     *proxy
}

// join lets t run beside the others. Most of its time is spent waiting.
func join(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	if raceEnabled {
		t.Skip("the race detector makes the proxy too slow for its timeouts; internal/proxy has the same paths")
	}
	if !long() {
		t.Parallel()
	}
}

// set starts n endpoints and a proxy in front of them.
func set(t *testing.T, n int, s ...settings) *stage {
	t.Helper()
	join(t)
	authority, err := demo.NewAuthority(demo.AuthorityOptions{})
	must(t, err)
	st := &stage{T: t, seen: newLedger()}
	for range n {
		e := newEndpoint(t, nextAddress(), authority, st.seen)
		t.Cleanup(e.close)
		e.up()
		st.endpoints = append(st.endpoints, e)
	}
	st.proxy = newProxy(t, authority, st.endpoints, "", s...)
	st.seen.forget()
	return st
}

// load is the load of most scenarios: 125 requests a second, one in four of which must not be made twice.
func (s *stage) load() *load {
	l := &load{
		address:  s.proxy.address,
		callers:  48,
		requests: 240,
		every:    8 * time.Millisecond,
		methods:  []string{http.MethodGet, http.MethodGet, http.MethodPut, http.MethodPost},
		body:     1000,
		at:       make(map[int]func()),
	}
	if long() {
		l.requests = 1250
	}
	return l
}

// carry makes the bodies of requests n bytes long, unless that is 0, and sends fewer of them.
func (l *load) carry(n int) {
	if n > 0 {
		l.body, l.requests, l.every = n, l.requests/4, 4*l.every
	}
}

// end checks what holds for every scenario, and writes the row of the table.
func (s *stage) end(table, name string, l *load) {
	s.Helper()
	tally := &l.tally
	arrived, again, _ := s.seen.sum()
	_, _, twice := s.seen.sum(http.MethodPost)
	if len(twice) > 0 {
		s.Errorf("the upstream got %d requests with POST more than once: %v", len(twice), twice)
	}
	for _, what := range tally.wrong {
		s.Errorf("callers saw what must never be: %s", what)
	}
	if total, most := l.made(), l.budget(); again > most {
		s.Errorf("of %d requests, %d arrived again; the budget for retries is %d", total, again, most)
	}
	if err := recovered(s.proxy.address); err != nil {
		s.Errorf("once the fault is over: %v", err)
	}
	after := s.proxy.gaveBack()
	r := row{
		name:    name,
		callers: tally.summary(),
		arrived: arrived,
		again:   again,
		p50:     percentile(tally.times, 0.5),
		p99:     percentile(tally.times, 0.99),
		before:  s.proxy.before,
		after:   after,
	}
	s.Logf("%+v", r)
	printed.add(table, r)
}

// budget is how many retries retry.budget allows in a load: a fifth of the requests, or three in ten seconds.
func (l *load) budget() int {
	requests := l.made()
	windows := 1 + int(time.Duration(requests)*l.every/(10*time.Second))
	return requests/5 + 3*windows
}

// punctual reports whether the machine let the load have its way. Where it did not, timeouts struck that had nothing to do
// with the fault, and what callers saw of that is not judged.
func (s *stage) punctual(l *load) bool {
	s.Helper()
	const most = 100 * time.Millisecond
	if l.late > most {
		s.Logf("this machine is too busy: requests were sent up to %v late", l.late)
	}
	return l.late <= most
}

// only checks that answers are among those.
func (s *stage) only(t *tally, methods []string, want ...string) {
	s.Helper()
	if len(methods) == 0 {
		return
	}
	for answer, n := range t.sum(methods...) {
		if !slices.Contains(want, answer) {
			s.Errorf("%s: %d times %q, want only %q", strings.Join(methods, ", "), n, answer, want)
		}
	}
}

var (
	safe       = []string{http.MethodGet}
	idempotent = []string{http.MethodGet, http.MethodPut}
	unsafe     = []string{http.MethodPost}
	everything = []string{http.MethodGet, http.MethodPut, http.MethodPost}
)

// fault is one thing that can be wrong with an endpoint.
type fault struct {
	name  string
	begin func(e *endpoint)
	end   func(e *endpoint) // nil: the endpoint is healed

	// answers are what callers may see of it beside 200, and what the circuit breaker says.
	answers []string

	// hidden are the methods that get 200 as long as another endpoint works.
	hidden []string
	timed  bool // it takes a timeout to notice
	body   int  // of PUT and POST; 0: as usual
}

func (f *fault) settings() settings {
	if f.timed {
		return hurried()
	}
	return nil
}

func (f *fault) over(e *endpoint) {
	if f.end != nil {
		f.end(e)
	} else {
		e.heal()
	}
}

func troubled(t *trouble) func(*endpoint) { return func(e *endpoint) { e.trouble.Store(t) } }

func faults() []fault {
	const (
		refused, reset  = "502 connection_refused", "502 connection_reset"
		answerReset     = "502 response_reset"
		connectTimeout  = "504 connection_timeout"
		tlsTimeout      = "504 tls_handshake_timeout"
		responseTimeout = "504 response_header_timeout"
	)
	return []fault{
		{name: "responses begin 100 ms late", begin: troubled(delaysHead(100 * time.Millisecond)), hidden: everything},
		{name: "bodies pause for 100 ms", begin: troubled(delaysBody(100 * time.Millisecond)), hidden: everything},
		{name: "reset before the request is read", begin: troubled(resetsUnread()), answers: []string{answerReset}, hidden: safe},
		{name: "reset after the request", begin: troubled(resetsAfter(nothing)), answers: []string{answerReset}, hidden: safe},
		{name: "reset in the response's head", begin: troubled(resetsAfter(halfHead)), answers: []string{answerReset}},
		{name: "reset in the response's body", begin: troubled(resetsAfter(halfBody)), answers: []string{cut, answerReset}},
		{name: "bodies end half way", begin: troubled(truncates()), answers: []string{cut}},
		{name: "closes behind each response", begin: troubled(closesIdle()), answers: []string{answerReset}, hidden: safe},
		{name: "no answer", begin: troubled(hangs()), answers: []string{responseTimeout, connectTimeout, tlsTimeout}, hidden: idempotent, timed: true},
		{
			name:    "bodies of requests are not read",
			begin:   troubled(stopsReading()),
			answers: []string{responseTimeout, connectTimeout, tlsTimeout, "504 request_timeout", "408 request_body_timeout"},
			hidden:  safe,
			timed:   true,
			body:    4 << 20,
		},
		{
			name: "takes connections and says nothing",
			begin: func(e *endpoint) {
				e.mute.Store(true)
				e.cut()
			},
			// A connection that comes about when that is over leaves its try little time for a response.
			answers: []string{tlsTimeout, connectTimeout, responseTimeout, answerReset},
			hidden:  safe,
			timed:   true,
		},
		{
			name:  "takes no connections, its queue is full",
			begin: (*endpoint).jam,
			end: func(e *endpoint) {
				e.heal()
				e.up()
			},
			answers: []string{connectTimeout, tlsTimeout, responseTimeout, answerReset}, // responseTimeout: as above
			hidden:  safe,
			timed:   true,
		},
		{name: "killed, and back", begin: (*endpoint).down, end: (*endpoint).up, answers: []string{refused, reset, answerReset}, hidden: safe},
		{
			name:    "its packets vanish",
			begin:   func(e *endpoint) { e.filter(true) },
			answers: []string{connectTimeout, tlsTimeout, responseTimeout},
			hidden:  idempotent,
			timed:   true,
		},
		{name: "503", begin: troubled(unavailable("")), answers: []string{"503"}, hidden: idempotent},
		{name: "503 with Retry-After: 1", begin: troubled(unavailable("1")), answers: []string{"503"}, hidden: idempotent},
	}
}

func TestOneEndpointWithAFault(t *testing.T) {
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			s := set(t, 1, f.settings())
			tally, l := s.suffer(&f)
			if !f.timed || s.punctual(l) {
				s.only(tally, everything, append(f.answers, "200", "503 circuit_breaker_open")...)
			}
			s.end("One endpoint", f.name, l)
		})
	}
}

func TestOneEndpointOfThreeWithAFault(t *testing.T) {
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			s := set(t, 3, f.settings())
			tally, l := s.suffer(&f)
			if !f.timed || s.punctual(l) {
				s.only(tally, everything, append(f.answers, "200")...)
				s.only(tally, f.hidden, "200")
			}
			s.end("One of three endpoints", f.name, l)
		})
	}
}

// suffer puts the stage under load, in the middle half of which its first endpoint has the fault.
func (s *stage) suffer(f *fault) (*tally, *load) {
	l := s.load()
	l.carry(f.body)
	l.at[l.requests/4] = func() { f.begin(s.endpoints[0]) }
	l.at[l.requests/4*3] = func() { f.over(s.endpoints[0]) }
	return l.run(), l
}

// One endpoint after another leaves, comes back and is lost from sight. The next one does once the last is in use again.
func TestEachOfThreeEndpointsFailsInTurn(t *testing.T) {
	s := set(t, 3, hurried())
	l := s.load()
	l.every = 10 * time.Millisecond
	l.requests = 0
	step, endpoints := int64(50), s.endpoints[:1]
	if long() {
		step, endpoints = 500, s.endpoints
	}
	l.play = func() {
		for _, e := range endpoints {
			l.more(step)
			e.down()
			l.more(step)
			e.up()
			l.more(step)
			e.filter(true)
			l.more(step)
			e.heal()
			s.proxy.until("all endpoints are in use", func() bool {
				return s.proxy.metric("mtls_proxy_upstream_endpoints", `state="in"`) == 3
			})
		}
		l.more(step)
	}
	tally := l.run()
	if s.punctual(l) {
		s.only(tally, safe, "200")
		s.only(tally, []string{http.MethodPut}, "200", "502 response_reset") // killed while it was on them
		s.only(tally, unsafe, "200", "502 response_reset", "504 response_header_timeout")
	}
	s.end("One of three endpoints", "each in turn: killed, restarted, its packets vanish", l)
}

// Two endpoints were put aside for their answers and work again; before their time is over, the third is lost. They are needed
// then.
func TestTheLastEndpointInUseFails(t *testing.T) {
	s := set(t, 3)
	l := s.load()
	l.requests = 0
	ejected := func(n float64) func() bool {
		return func() bool { return s.proxy.metric("mtls_proxy_upstream_endpoints", `state="ejected"`) == n }
	}
	a, b, last := s.endpoints[0], s.endpoints[1], s.endpoints[2]
	l.play = func() {
		l.more(20)
		a.trouble.Store(unavailable(""))
		s.proxy.until("the first is put aside", ejected(1))
		a.heal()
		b.trouble.Store(unavailable(""))
		s.proxy.until("the second is put aside", ejected(2))
		b.heal()
		last.down()
		l.more(200)
		last.up()
	}
	tally := l.run()
	s.only(tally, everything, "200", "503", "502 connection_refused", "502 response_reset")
	if failed := l.made() - tally.sum()["200"]; failed > 20 {
		t.Errorf("%d requests failed, want no more than it takes to notice that the third is lost", failed)
	}
	s.end("One of three endpoints", "killed while the others, which are back, are still put aside", l)
}
