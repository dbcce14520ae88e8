package proxy

import (
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

// A server that does not read a request's body as one answers it as the next request, a little later.
func TestWhoseExchangesAConnectionCarriesNext(t *testing.T) {
	for name, c := range map[string]struct {
		method          string
		framing         http1.Framing
		length          int64
		status          int
		early, reserved bool
		want            reuse
	}{
		"GET":                           {"GET", http1.NoBody, 0, 200, false, false, byAnyone},
		"GET, refused":                  {"GET", http1.NoBody, 0, 404, false, false, byAnyone},
		"GET with a body":               {"GET", http1.Length, 5, 200, false, false, never},
		"GET with a body in chunks":     {"GET", http1.Chunked, 0, 200, false, false, never},
		"HEAD with a body":              {"HEAD", http1.Length, 5, 200, false, false, never},
		"DELETE with a body":            {"DELETE", http1.Length, 5, 200, false, false, never},
		"OPTIONS with a body":           {"OPTIONS", http1.Length, 5, 200, false, false, never},
		"TRACE with a body":             {"TRACE", http1.Length, 5, 200, false, false, never},
		"an unknown method with a body": {"BREW", http1.Length, 5, 200, false, false, never},
		"a method in lower case":        {"post", http1.Length, 5, 200, false, false, never},
		"POST of nothing":               {"POST", http1.Length, 0, 200, false, false, byAnyone},
		"POST":                          {"POST", http1.Length, 5, 200, false, false, byCaller},
		"POST in chunks":                {"POST", http1.Chunked, 0, 200, false, false, byCaller},
		"PROPFIND":                      {"PROPFIND", http1.Length, 5, 207, false, false, byCaller},
		"PUT, refused":                  {"PUT", http1.Length, 5, 404, false, false, afterARest},
		"POST, failed":                  {"POST", http1.Chunked, 0, 500, false, false, afterARest},
		"POST, answered early":          {"POST", http1.Length, 5, 200, true, false, never},
		"GET behind the caller's POST":  {"GET", http1.NoBody, 0, 200, false, true, byCaller},
	} {
		t.Run(name, func(t *testing.T) {
			req := &http1.Request{Method: []byte(c.method)}
			req.Framing, req.ContentLength = c.framing, c.length
			if got := reuseAfter(req, &http1.Response{Status: c.status}, c.early, c.reserved); got != c.want {
				t.Errorf("reuseAfter = %d, want %d", got, c.want)
			}
		})
	}
}

func TestAConnectionAfterABody(t *testing.T) {
	body := func(method string) string { return strings.Replace(post("/", "whole"), "POST", method, 1) }
	for name, c := range map[string]struct {
		first       string
		connections int
	}{
		"GET":                           {get("/"), 1},
		"GET with a body":               {body("GET"), 2},
		"DELETE with a body":            {body("DELETE"), 2},
		"an unknown method with a body": {body("BREW"), 2},
		"POST without a body":           {post("/", ""), 1},
		"POST":                          {body("POST"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			u := &tries{each: []func(*demo.Conn){says(200)}}
			k := start(t, setup{upstream: u.options()})
			caller := k.dial()
			caller.send(c.first).answer().ok(k)
			caller.send(get("/next")).answer().ok(k)
			if n := k.upstream.Stats().Connections; n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
		})
	}
}
