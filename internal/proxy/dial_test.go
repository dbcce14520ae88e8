package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// deaf is a TCP server that accepts and says nothing, so that a TLS handshake with it never ends.
func deaf(k *kit) (address string, conns chan net.Conn) {
	k.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	k.must(err)
	conns = make(chan net.Conn, 10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			k.Cleanup(func() { _ = c.Close() })
			conns <- c
		}
	}()
	k.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String(), conns
}

// toDeaf leads everything below /deaf to such a server.
func toDeaf(k *kit, timeout string) (conns chan net.Conn) {
	k.Helper()
	address, conns := deaf(k)
	k.reload(fmt.Sprintf("[upstream.deaf]\nurl = \"https://%s\"\nretry.attempts = 0\n[upstream.deaf.timeout]\n%s\n[[route]]\nupstream = \"default\"\n"+
		"[[route]]\nupstream = \"deaf\"\npath_prefix = \"/deaf\"\n", address, timeout))
	return conns
}

func TestHandshakeTimeout(t *testing.T) {
	k := start(t, setup{})
	toDeaf(k, `tls_handshake = "30ms"`)
	c := k.dial()
	c.send(get("/deaf")).answer().problem(k, fault.TLSHandshakeTimeout)
	k.faulted(fault.TLSHandshakeTimeout, 504)
	c.send(get("/")).answer().ok(k)
}

// An endpoint that took all of its time is not asked for as much again.
func TestSilentEndpointIsTriedOnce(t *testing.T) {
	k := start(t, setup{})
	address, conns := deaf(k)
	k.fleet(`timeout.tls_handshake = "30ms"`, address)
	k.dial().send(post("/", "whole")).answer().problem(k, fault.TLSHandshakeTimeout)
	if n := len(conns); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// The endpoints of an upstream share the time for a connection.
func TestSilentEndpointsShareOneBudget(t *testing.T) {
	k := start(t, setup{})
	one, first := deaf(k)
	two, second := deaf(k)
	three, third := deaf(k)
	k.fleet("timeout = { connect = \"200ms\", tls_handshake = \"300ms\" }\nretry.attempts = 5", one, two, three)
	a := k.dial().send(get("/")).answer().problem(k, fault.TLSHandshakeTimeout)
	if len(first) != 1 || len(second) > 1 || len(third) != 0 {
		t.Errorf("%d, %d and %d connections, want one each to the first two at most", len(first), len(second), len(third))
	}
	if len(second) == 1 && !strings.Contains(a.text, "timeout.connect and timeout.tls_handshake together") {
		t.Errorf("no word of the budget: %s", a.text)
	}
}

// A time for each try is there so that there can be another, and the fault says which phase was under way.
func TestTryTimeoutWhileConnecting(t *testing.T) {
	k := start(t, setup{})
	address, conns := deaf(k)
	k.fleet("retry = { try_timeout = \"200ms\", attempts = 2, backoff = \"1ms\" }", address)
	a := k.dial().send(get("/")).answer().problem(k, fault.TLSHandshakeTimeout)
	if n := len(conns); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	if !strings.Contains(a.text, "retry.try_timeout") {
		t.Errorf("no word of the setting: %s", a.text)
	}
}

func TestRequestTimeoutWhileConnecting(t *testing.T) {
	k := start(t, setup{})
	toDeaf(k, `request = "30ms"`)
	c := k.dial()
	c.send(get("/deaf")).answer().problem(k, fault.RequestTimeout)
	c.closed()
	k.faulted(fault.RequestTimeout, 504)
}

func TestCallerGoneWhileConnecting(t *testing.T) {
	k := start(t, setup{})
	conns := toDeaf(k, "")
	for range 2 {
		c := k.dial().send(get("/deaf"))
		up := take(k, "the connection", conns)
		_ = c.Close()
		if _, err := up.Read(make([]byte, 1<<16)); err != nil { // ClientHello
			t.Fatal(err)
		}
		if n, err := up.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d more bytes", n)
		}
	}
	k.until("both are recorded", func() bool { return len(k.records()) == 2 })
	for _, r := range k.records() {
		if r["fault"] != string(fault.CallerGone) {
			t.Errorf("record %v", r)
		}
	}
}

// A drain that is over does not wait for a handshake.
func TestDrainWhileConnecting(t *testing.T) {
	k := start(t, setup{})
	conns := toDeaf(k, "")
	c := k.dial().send(get("/deaf"))
	take(k, "the connection", conns)
	if err := k.drain(1); err == nil {
		t.Error("Drain() = nil, want that one was cut")
	}
	c.answer().problem(k, fault.Draining)
	c.ended()
}
