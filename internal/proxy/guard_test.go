package proxy

import (
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestBrowserGuard(t *testing.T) {
	const ok = fault.Token("")
	type table map[string]struct {
		text  string
		token fault.Token
	}
	run := func(t *testing.T, config string, cases table, unix bool) {
		k := start(t, setup{config: config})
		path := ""
		if unix {
			path = k.unix()
		}
		for name, c := range cases {
			t.Run(name, func(*testing.T) {
				caller := k.dial()
				if unix {
					caller = k.connect("unix", path)
				}
				a := caller.send(c.text).answer()
				if c.token == ok {
					a.ok(k)
				} else {
					a.problem(k, c.token)
				}
			})
		}
	}
	host := func(h string) string { return "GET / HTTP/1.1\r\nHost: " + h + "\r\n\r\n" }
	t.Run("loopback", func(t *testing.T) {
		run(t, "", table{
			"localhost":              {host("localhost"), ok},
			"with a port":            {host("localhost:8080"), ok},
			"in capitals":            {host("LocalHost:8080"), ok},
			"with a dot":             {host("localhost."), ok},
			"127.0.0.1":              {host("127.0.0.1:1"), ok},
			"[::1]":                  {host("[::1]:8080"), ok},
			"HTTP/1.0 without":       {"GET / HTTP/1.0\r\n\r\n", ok},
			"empty":                  {host(""), fault.BadRequest},
			"rebound name":           {host("evil.example"), fault.HostNotAllowed},
			"rebound with a port":    {host("evil.example:8080"), fault.HostNotAllowed},
			"name that begins so":    {host("localhost.evil.example"), fault.HostNotAllowed},
			"site none":              {get("/", "Sec-Fetch-Site: none"), ok},
			"same origin":            {get("/", "Sec-Fetch-Site: same-origin", "Origin: http://localhost"), ok},
			"cross site":             {get("/", "Sec-Fetch-Site: cross-site"), fault.BrowserRequestDenied},
			"same site":              {get("/", "Sec-Fetch-Site: same-site"), fault.BrowserRequestDenied},
			"foreign origin":         {get("/", "Origin: https://evil.example"), fault.BrowserRequestDenied},
			"another port":           {get("/", "Origin: http://localhost:3000"), fault.BrowserRequestDenied},
			"null origin":            {get("/", "Origin: null"), fault.BrowserRequestDenied},
			"preflight":              {request("OPTIONS", "/", "Access-Control-Request-Method: POST"), fault.BrowserRequestDenied},
			"preflight, same origin": {request("OPTIONS", "/", "Origin: http://localhost", "Access-Control-Request-Method: POST"), fault.BrowserRequestDenied},
		}, false)
	})
	t.Run("a route's host", func(t *testing.T) {
		run(t, "[[route]]\nhost = \"api.localhost\"\n[[route]]\nhost = \"*.wild.localhost\"\n", table{
			"its name":    {host("api.localhost"), ok},
			"a wildcard":  {host("x.wild.localhost:80"), ok},
			"another one": {host("apo.localhost"), fault.HostNotAllowed},
			"ours":        {host("localhost"), fault.NoRoute},
		}, false)
	})
	t.Run("allowed_hosts", func(t *testing.T) {
		run(t, "[listener.http]\nallowed_hosts = [\"api.test\"]\n", table{
			"named": {host("api.test"), ok},
			"not":   {host("other.test"), fault.HostNotAllowed},
		}, false)
	})
	t.Run("any host", func(t *testing.T) {
		run(t, "[listener.http]\nallowed_hosts = [\"*\"]\n", table{
			"any":        {host("evil.example"), ok},
			"cross site": {get("/", "Sec-Fetch-Site: cross-site"), fault.BrowserRequestDenied},
		}, false)
	})
	t.Run("browsers allowed", func(t *testing.T) {
		run(t, "[listener.http]\nbrowser_requests = \"allow\"\n", table{
			"cross site":   {get("/", "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), ok},
			"rebound name": {host("evil.example"), fault.HostNotAllowed},
		}, false)
	})
	t.Run("Unix socket", func(t *testing.T) {
		run(t, "", table{
			"any host":   {host("evil.example"), ok},
			"cross site": {get("/", "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), ok},
		}, true)
	})
}

// The last host that was allowed is remembered, for that host and that configuration only.
func TestAllowedHostsAreAskedForAgain(t *testing.T) {
	allow := func(host string) string { return "[listener.http]\nallowed_hosts = [\"" + host + "\"]\n" }
	ask := func(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	k := start(t, setup{config: allow("api.test")})
	c := k.dial()
	for range 2 {
		c.send(ask("api.test")).answer().ok(k)
		c.send(ask("api.tesT:80")).answer().ok(k)
		c.send(ask("api.tess")).answer().problem(k, fault.HostNotAllowed)
		c.send(ask("api.tes")).answer().problem(k, fault.HostNotAllowed)
	}
	c.send(ask("api.test")).answer().ok(k)
	k.reload(allow("other.test"))
	c.send(ask("api.test")).answer().problem(k, fault.HostNotAllowed)
	c.send(ask("other.test")).answer().ok(k)
}
