package proxy

import (
	"fmt"
	"net"
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
