package proxy

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestBrowserGuard(t *testing.T) {
	const ok = fault.Token("")
	type table map[string]struct {
		text  string
		token fault.Token
	}
	run := func(t *testing.T, config string, cases table, unix bool, upstream ...string) {
		k := start(t, setup{config: config, settings: strings.Join(upstream, "")})
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
			"an empty port":          {host("localhost:"), ok},
			"our address":            {host("127.0.0.1:1"), ok},
			"another address":        {host("127.0.0.2"), fault.HostNotAllowed},
			"of a program":           {get("/", "Origin: http://localhost"), ok},
			"of a program's socket":  {get("/", "Origin: ws://localhost:80"), ok},
			"with a path":            {get("/", "Origin: http://localhost/x"), fault.BrowserRequestDenied},
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
	t.Run("the upstream's name", func(t *testing.T) {
		run(t, "", table{
			"in Host":           {"GET / HTTP/1.1\r\nHost: vendor.example:8080\r\nOrigin: http://vendor.example:8080\r\nSec-Fetch-Site: same-origin\r\n\r\n", fault.HostNotAllowed},
			"in the target":     {"GET http://vendor.example/ HTTP/1.1\r\nHost: vendor.example\r\n\r\n", ok},
			"another in target": {"GET http://other.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", fault.HostNotAllowed},
		}, false, "server_name = \"vendor.example\"\nverify_peer = \"peer_names\"\npeer_names = [\"localhost\"]")
	})
	t.Run("the upstream's name, allowed", func(t *testing.T) {
		run(t, "[listener.http]\nallowed_hosts = [\"vendor.example\"]\n", table{
			"that is allowed": {host("vendor.example"), ok},
		}, false, "server_name = \"vendor.example\"\nverify_peer = \"peer_names\"\npeer_names = [\"localhost\"]")
	})
	t.Run("allowed_origins", func(t *testing.T) {
		run(t, "[listener.http]\nallowed_origins = [\"https://App.example\"]\n", table{
			"named":            {get("/", "Origin: https://app.example", "Sec-Fetch-Site: cross-site"), ok},
			"named, preflight": {request("OPTIONS", "/", "Origin: https://app.example", "Access-Control-Request-Method: POST"), ok},
			"not named":        {get("/", "Origin: https://app.example:444"), fault.BrowserRequestDenied},
			"no Origin":        {get("/", "Sec-Fetch-Site: cross-site"), fault.BrowserRequestDenied},
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
			"any host":    {host("evil.example"), ok},
			"cross site":  {get("/", "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), ok},
			"a path":      {host("/run/x.sock"), ok},
			"an escaped":  {host("%2Ftmp%2Fp.sock"), ok},
			"in hex":      {host("2f746d702f702e736f636b:0"), ok},
			"empty":       {host(""), ok},
			"rubbish":     {host("a b\"c"), ok},
			"two":         {"GET / HTTP/1.1\r\nHost: /a\r\nHost: /a\r\n\r\n", fault.BadRequest},
			"none at all": {"GET / HTTP/1.1\r\n\r\n", fault.BadRequest},
		}, true)
	})
	t.Run("Unix socket, host passed on", func(t *testing.T) {
		run(t, "", table{
			"passed on":     {host("localhost"), ok},
			"not passed on": {host("/run/x.sock"), fault.BadRequest},
			"nor an empty":  {host(""), fault.BadRequest},
		}, true, `host = "preserve"`)
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

// A browser on this host reaches every address of it.
func TestBrowserGuardOnOtherAddressesOfThisHost(t *testing.T) {
	check := func(t *testing.T, ln net.Listener, named net.IP) {
		k := start(t, setup{})
		k.serve("http", ln)
		address := ln.Addr().String()
		_, port, err := net.SplitHostPort(address)
		k.must(err)
		host := net.JoinHostPort(named.String(), port)
		ask := func(fields string) answer {
			return k.connect("tcp", address).send("GET / HTTP/1.1\r\nHost: " + host + "\r\n" + fields + "\r\n").answer()
		}
		ask("").ok(k)
		ask("Sec-Fetch-Site: cross-site\r\n").problem(k, fault.BrowserRequestDenied)
		k.connect("tcp", address).send("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").answer().problem(k, fault.HostNotAllowed)
	}
	listen := func(t *testing.T, ip net.IP) net.Listener {
		ln, err := net.Listen("tcp", net.JoinHostPort(ip.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	t.Run("as the kernel shows them", func(t *testing.T) {
		ip := net.IPv4(192, 0, 2, 1)
		check(t, renamed{listen(t, net.IPv4(127, 0, 0, 1)).(*net.TCPListener), ip}, ip)
	})
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() {
			t.Run(ip.IP.String(), func(t *testing.T) { check(t, listen(t, ip.IP), ip.IP) })
			return
		}
	}
}

// renamed is a listener whose connections seem to lead from ip to ip.
type renamed struct {
	tcp *net.TCPListener
	ip  net.IP
}

func (r renamed) Accept() (net.Conn, error) {
	c, err := r.tcp.Accept()
	if err != nil {
		return nil, err
	}
	return renamedConn{c.(*net.TCPConn), r.ip}, nil
}

func (r renamed) Addr() net.Addr                { return r.tcp.Addr() }
func (r renamed) Close() error                  { return r.tcp.Close() }
func (r renamed) SetDeadline(t time.Time) error { return r.tcp.SetDeadline(t) }

type renamedConn struct {
	*net.TCPConn
	ip net.IP
}

func (c renamedConn) LocalAddr() net.Addr  { return c.as(c.TCPConn.LocalAddr()) }
func (c renamedConn) RemoteAddr() net.Addr { return c.as(c.TCPConn.RemoteAddr()) }

func (c renamedConn) as(a net.Addr) net.Addr {
	return &net.TCPAddr{IP: c.ip, Port: a.(*net.TCPAddr).Port}
}
