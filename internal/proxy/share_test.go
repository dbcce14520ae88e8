package proxy

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestRateLimitByHeader(t *testing.T) {
	k := start(t, setup{config: "[rate_limit]\nrequests_per_second = 0.001\nburst = 1\nkey = \"header:X-Team\"\n"})
	c := k.dial()
	c.send(get("/", "X-Team: blue")).answer().ok(k)
	c.send(get("/", "x-team: green")).answer().ok(k)
	a := c.send(get("/", "X-Team: blue")).answer()
	a.problem(k, fault.RateLimited)
	if !strings.Contains(a.text, "header:X-Team") {
		t.Errorf("the answer does not name the key: %s", a.text)
	}
	c.send(get("/")).answer().ok(k) // those without the field share one bucket
	c.send(get("/")).answer().problem(k, fault.RateLimited)
}

// Which of two values an upstream goes by is not known.
func TestRateLimitByHeaderWantsOneValue(t *testing.T) {
	k := start(t, setup{config: "[rate_limit]\nrequests_per_second = 0.001\nburst = 1\nkey = \"header:X-Api-Key\"\n"})
	for _, second := range []string{"X-Api-Key: fixed", "x-api-key: fixed", "X_Api_Key: fixed", "X-Api.Key: fixed"} {
		a := k.dial().send(get("/", "X-Api-Key: random", second)).answer()
		a.problem(k, fault.BadRequest)
		if !strings.Contains(a.text, "X-Api-Key is there more than once") {
			t.Errorf("with %q: %s", second, a.text)
		}
	}
	k.dial().send(get("/", "X-Api-Key: random")).answer().ok(k)
}

func TestRateLimitByAddress(t *testing.T) {
	k := start(t, setup{config: "[rate_limit]\nrequests_per_second = 0.001\nburst = 1\nkey = \"ip\"\n"})
	k.dial().send(get("/")).answer().ok(k)
	k.dial().send(get("/")).answer().problem(k, fault.RateLimited)
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}} // which is this host, too
	c, err := other.Dial("tcp", k.address)
	k.must(err)
	k.must(c.SetDeadline(time.Now().Add(patience)))
	(&caller{Conn: c, k: k, r: bufio.NewReader(c)}).send(get("/")).answer().problem(k, fault.RateLimited)
	_ = c.Close()
}

func TestRouteHasALimitOfItsOwn(t *testing.T) {
	k := start(t, setup{config: `
[[route]]
path_prefix = "/slow"
upstream = "default"
rate_limit = { requests_per_second = 0.001, burst = 1 }
[[route]]
upstream = "default"
`})
	c := k.dial()
	c.send(get("/slow")).answer()
	a := c.send(get("/slow")).answer()
	a.problem(k, fault.RateLimited)
	if !strings.Contains(a.text, "route[1].rate_limit") {
		t.Errorf("the answer does not say which limit it was: %s", a.text)
	}
	c.send(get("/")).answer().ok(k)
}

func TestShareOfConnectionsPerCaller(t *testing.T) {
	k := start(t, setup{config: "[listener.http]\naddress = \"127.0.0.1:0\"\nmax_connections_per_caller = 1\n"})
	first := k.dial()
	first.send(get("/")).answer().ok(k)
	a := k.dial().answer()
	a.problem(k, fault.ConnectionLimit)
	if !strings.Contains(a.text, "listener.http.max_connections_per_caller") {
		t.Errorf("the answer does not say which limit it was: %s", a.text)
	}
	_ = first.Close()
	k.until("there is room again", func() bool { return k.server.Stats().ActiveConnections == 0 })
	k.dial().send(get("/")).answer().ok(k)
}
