package proxy

import (
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// A server that does not read a request's body as one answers it as the next request, a little later.
func TestAConnectionThatMayStillAnswerABodyIsNotAnotherCallers(t *testing.T) {
	body := func(method string) string { return strings.Replace(post("/", "whole"), "POST", method, 1) }
	for name, c := range map[string]struct {
		first       string
		status      int
		same        bool // the second request is the same caller's
		connections int
	}{
		"GET":                             {get("/"), 200, false, 1},
		"GET, refused":                    {get("/"), 404, false, 1},
		"GET with a body":                 {body("GET"), 200, false, 2},
		"GET with a body, the same":       {body("GET"), 200, true, 2},
		"DELETE with a body":              {body("DELETE"), 200, false, 2},
		"OPTIONS with a body":             {body("OPTIONS"), 200, false, 2},
		"an unknown method with a body":   {body("BREW"), 200, false, 2},
		"POST without a body":             {post("/", ""), 200, false, 1},
		"POST, another caller":            {body("POST"), 200, false, 2},
		"POST, the same caller":           {body("POST"), 200, true, 1},
		"PUT, refused":                    {body("PUT"), 404, false, 2},
		"PUT, refused, the same caller":   {body("PUT"), 404, true, 2},
		"PROPFIND, the same caller again": {body("PROPFIND"), 207, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			u := &tries{each: []func(*demo.Conn){says(c.status), says(200)}}
			k := start(t, setup{upstream: u.options()})
			caller := k.dial()
			caller.send(c.first).answer().is(k, c.status)
			if !c.same {
				caller = k.dial()
			}
			caller.send(get("/next")).answer().ok(k)
			if n := k.upstream.Stats().Connections; n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
		})
	}
}
