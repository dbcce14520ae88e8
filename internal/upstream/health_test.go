package upstream

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/resolve"
)

// quick is a Check that is over soon.
func quick(o *Options) {
	o.Check = Check{
		Path: "/healthz", Interval: 2 * time.Millisecond, Timeout: patience, Expect: []int{200, 204}, UnhealthyAfter: 3, HealthyAfter: 2,
	}
}

func TestChecksTakeEndpointsOutAndBack(t *testing.T) {
	var status atomic.Int64
	var host, serial atomic.Value
	status.Store(200)
	f := newFleet(t, 2, func(i int) demo.UpstreamOptions {
		if i > 0 {
			return demo.UpstreamOptions{}
		}
		return demo.UpstreamOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && r.Method == http.MethodGet {
				host.Store(r.Host)
				serial.Store(r.TLS.PeerCertificates[0].SerialNumber.Text(16))
				w.WriteHeader(int(status.Load()))
			}
		})}
	}, func(f *fleet, o *Options) {
		quick(o)
		o.Balance = First
		o.Servers[0].Host = "api.test"
	})
	f.run(t)
	address := f.servers[0].Addr()
	eventually(t, "some checks", func() bool {
		return f.counter(t, "mtls_proxy_health_checks_total", `result="passed"`) > 10
	})
	if s := f.state(t, address); s.State != "in" {
		t.Errorf("state = %+v, want in", s)
	}
	if host.Load() != "api.test" || !strings.HasSuffix(f.client.Serial(), serial.Load().(string)) {
		t.Errorf("a check had Host %v and the certificate %v; want api.test, %s", host.Load(), serial.Load(), f.client.Serial())
	}
	status.Store(503)
	if e := f.event(t, EndpointUnhealthy); e.Endpoint != address || e.Err == nil || !strings.Contains(e.Err.Error(), "status 503") {
		t.Errorf("event = %+v, want %s with status 503", e, address)
	}
	if s := f.state(t, address); s.State != "unhealthy" {
		t.Errorf("state = %+v, want unhealthy", s)
	}
	if got := f.pick(t, new(Tried), Success).Address(); got != f.servers[1].Addr() {
		t.Errorf("chosen %s, want the healthy one", got)
	}
	if n := f.counter(t, "mtls_proxy_health_checks_total", `result="failed"`); n < 3 {
		t.Errorf("%d checks failed, want 3 before it was out", n)
	}
	status.Store(204)
	if e := f.event(t, EndpointHealthy); e.Endpoint != address {
		t.Errorf("event = %+v, want %s", e, address)
	}
	if s := f.state(t, address); s.State != "in" {
		t.Errorf("state = %+v, want in", s)
	}
	// The checks went over a few connections, which are kept.
	if n := f.servers[0].Stats().Connections; n > 2 {
		t.Errorf("the checks took %d connections", n)
	}
}

func TestChecksNoticeWhoIsGone(t *testing.T) {
	f := newFleet(t, 2, nil, func(_ *fleet, o *Options) { quick(o) })
	f.run(t)
	f.servers[0].Close()
	if e := f.event(t, EndpointUnhealthy); e.Endpoint != f.servers[0].Addr() || e.Err == nil {
		t.Errorf("event = %+v, want %s with an error", e, f.servers[0].Addr())
	}
}

func TestChecksUnderstandAnswers(t *testing.T) {
	big := strings.Repeat("x", 100<<10)
	for name, c := range map[string]struct {
		answer string
		more   bool // the same connection can be asked again
		ok     bool
	}{
		"no body":       {"HTTP/1.1 204 No Content\r\n\r\n", true, true},
		"a length":      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, true},
		"of nothing":    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, true},
		"chunks":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true, true},
		"interim":       {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, true},
		"a promise":     {"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok", true, true},
		"close":         {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false, true},
		"until close":   {"HTTP/1.1 200 OK\r\n\r\nok", false, true},
		"HTTP/1.0":      {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, true},
		"more":          {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", false, true},
		"a large body":  {"HTTP/1.1 200 OK\r\nContent-Length: 102400\r\n\r\n" + big, false, true},
		"large chunks":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n19000\r\n" + big + "\r\n0\r\n\r\n", false, true},
		"broken chunks": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", false, true},
		"another":       {"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n", true, false},
		"an upgrade":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", false, false},
		"endless":       {strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1001) + "HTTP/1.1 200 OK\r\n\r\n", false, false},
		"nonsense":      {"SSH-2.0-OpenSSH\r\n\r\n", false, false},
		"a large head":  {"HTTP/1.1 200 OK\r\nX: " + big + "\r\n\r\n", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 1, func(int) demo.UpstreamOptions {
				return demo.UpstreamOptions{Script: func(s *demo.Conn) {
					for {
						if _, err := s.ReadHead(); err != nil {
							return
						}
						if _, err := s.WriteString(c.answer); err != nil || !c.more {
							return
						}
					}
				}}
			}, func(_ *fleet, o *Options) { quick(o) })
			e := f.pick(t, new(Tried), Success)
			for i := range 3 {
				if err := e.check(t.Context()); (err == nil) != c.ok {
					t.Errorf("check %d = %v, want it to pass: %v", i, err, c.ok)
				}
				want := 0
				if c.more {
					want = 1
				}
				if idle, active := f.all.Stats(); idle != want || active != 0 {
					t.Errorf("Stats() = %d, %d; want %d, 0", idle, active, want)
				}
			}
		})
	}
}

func TestAnEndlessAnswerToACheckIsAFailure(t *testing.T) {
	for name, answer := range map[string]string{"nothing": "", "half a head": "HTTP/1.1 200 OK\r\n"} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 1, func(int) demo.UpstreamOptions {
				return demo.UpstreamOptions{Script: func(c *demo.Conn) {
					_, _ = c.WriteString(answer)
					c.WaitClosed()
				}}
			}, func(_ *fleet, o *Options) {
				quick(o)
				o.Check.Timeout = 20 * time.Millisecond
			})
			err := f.pick(t, new(Tried), Success).check(t.Context())
			if err == nil || !strings.Contains(err.Error(), "no answer to GET /healthz within 20ms") {
				t.Errorf("check = %v, want it to say that there was no answer", err)
			}
		})
	}
}

func TestACheckOfAConnectionJustClosedUsesAnother(t *testing.T) {
	f := newFleet(t, 1, func(int) demo.UpstreamOptions {
		return demo.UpstreamOptions{Script: func(c *demo.Conn) {
			if _, err := c.ReadHead(); err != nil {
				return
			}
			_, _ = c.WriteString("HTTP/1.1 204 No Content\r\n\r\n")
			_, _ = c.ReadHead() // and then hangs up
		}}
	}, func(_ *fleet, o *Options) { quick(o) })
	e := f.pick(t, new(Tried), Success)
	for i := range 4 {
		if err := e.check(t.Context()); err != nil {
			t.Errorf("check %d: %v", i, err)
		}
	}
}

func TestEndpointsThatJoinAreCheckedAndThoseThatLeftNot(t *testing.T) {
	f := newFleet(t, 2, nil, func(_ *fleet, o *Options) { quick(o) })
	first := addressesOf(t, f.servers[0].Addr())
	both := addressesOf(t, f.servers[0].Addr(), f.servers[1].Addr())
	f.all.resolver = nil // this test is the one that answers
	f.all.take(time.Now(), first)
	f.run(t)
	requests := func(i int) int { return f.servers[i].Stats().Requests }
	eventually(t, "checks of the first", func() bool { return requests(0) > 2 })
	if n := requests(1); n != 0 {
		t.Errorf("one that is no endpoint was asked %d times", n)
	}
	f.all.take(time.Now(), both)
	eventually(t, "checks of the second", func() bool { return requests(1) > 2 })
	f.all.take(time.Now(), both[1:])
	eventually(t, "the end of the first one's connections", func() bool { return f.servers[0].Stats().Open == 0 })
	before, other := requests(0), requests(1)
	eventually(t, "more checks of the second", func() bool { return requests(1) > other+10 })
	if n := requests(0); n > before+1 {
		t.Errorf("one that left was asked %d times more", n-before)
	}
}

func addressesOf(t *testing.T, hosts ...string) []resolve.Address {
	t.Helper()
	r, err := resolve.New(resolve.Options{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	return r.Addresses()
}
