package proxy

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

const longTunnel = "tunnel_idle = \"1h\"\nresponse_header = \"40ms\"" // the sweeper still looks every 10 ms

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

func upgrading(fields ...string) string {
	return get("/upgrade", append(fields, "Connection: Upgrade", "Upgrade: echo")...)
}

// tunnel opens one.
func (k *kit) tunnel() *caller {
	k.Helper()
	c := k.dial().send(upgrading())
	head := c.rawHead()
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "\r\nUpgrade: echo\r\n") || !strings.Contains(head, "\r\nConnection: Upgrade\r\n") {
		k.Fatalf("no tunnel: %q", head)
	}
	return c
}

func (c *caller) read(want string) {
	c.k.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
		c.k.Fatalf("want %q, got %q and %v", want, got[:n], err)
	}
}

func TestTunnel(t *testing.T) {
	k := start(t, setup{timeout: longTunnel})
	c := k.tunnel()
	if n := k.store.Current().Limits.Requests.InUse(); n != 0 {
		t.Errorf("a tunnel takes %d places among the requests", n)
	}
	if n := k.server.Stats().ActiveExchanges; n != 1 {
		t.Errorf("%d exchanges in progress, want 1", n)
	}
	for _, s := range []string{"ping", strings.Repeat("large", 100_000), "x"} {
		go func() { _, _ = io.WriteString(c.Conn, s) }()
		c.read(s)
	}
	c.half().ended()
	k.until("the exchange is over", func() bool {
		return k.metric(`mtls_proxy_response_status_codes_total{code="101",upstream="default"}`) == 1
	})
	if list := k.records(); len(list) != 0 {
		t.Errorf("records of a tunnel that ended well: %v", list)
	}
}

func TestTunnelWithEarlyBytes(t *testing.T) {
	k := start(t, setup{timeout: longTunnel, upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.WriteString(switching + "welcome")
			_, _ = io.Copy(c, c.Reader())
			_ = c.CloseWrite()
		}
	})})
	for _, early := range []string{"early", strings.Repeat("e", 300_000)} {
		c := k.dial()
		go func() { // in one write with the request, and more than one buffer of it
			_, _ = io.WriteString(c.Conn, upgrading()+early)
		}()
		c.rawHead()
		c.read("welcome" + early)
		c.half().ended()
	}
	// A large head before the early bytes means a large buffer.
	c := k.dial()
	large := strings.Repeat("l", 60_000)
	go func() { _, _ = io.WriteString(c.Conn, upgrading("X-Large: "+strings.Repeat("h", 30_000))+large) }()
	c.rawHead()
	c.read("welcome" + large)
	c.half().ended()
}

func TestTunnelHalfClosedByUpstream(t *testing.T) {
	got := make(chan string, 1)
	k := start(t, setup{timeout: longTunnel, upstream: script(func(c *demo.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.WriteString(switching + "done")
			_ = c.CloseWrite()
			b, _ := io.ReadAll(c.Reader())
			got <- string(b)
		}
	})})
	c := k.tunnel()
	c.read("done")
	c.ended()
	c.send("last words").half()
	if s := take(k, "the upstream's end", got); s != "last words" {
		t.Errorf("the upstream got %q", s)
	}
}

func TestTunnelThatBreaks(t *testing.T) {
	t.Run("upstream without close_notify", func(t *testing.T) {
		k := start(t, setup{timeout: longTunnel, upstream: script(func(c *demo.Conn) {
			if _, err := c.ReadHead(); err == nil {
				c.WriteString(switching + "part")
				_ = c.Truncate()
			}
		})})
		c := k.tunnel()
		c.read("part")
		c.cut()
		k.faulted(fault.ResponseTruncated, 101)
	})
	t.Run("caller reset", func(t *testing.T) {
		k := start(t, setup{timeout: longTunnel})
		c := k.tunnel()
		k.must(c.Conn.(*net.TCPConn).SetLinger(0))
		_ = c.Close()
		k.faulted(fault.CallerGone, 101)
		k.until("the upstream's connection is closed", func() bool { return k.upstream.Stats().Open == 0 })
	})
}

func TestTunnelIdle(t *testing.T) {
	k := start(t, setup{timeout: `tunnel_idle = "40ms"`})
	c := k.tunnel()
	c.send("ping").read("ping")
	c.cut()
	k.faulted(fault.TunnelIdleTimeout, 101)
}

// As docker and kubectl do: any method, and a body first.
func TestUpgradeWithABody(t *testing.T) {
	const body = `{"Detach":false,"Tty":true}`
	for name, c := range map[string]struct{ request, body string }{
		"length":           {request("POST", "/exec", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 27") + body, body},
		"chunks":           {request("POST", "/exec", "Connection: Upgrade", "Upgrade: tcp", "Transfer-Encoding: chunked") + "1b\r\n" + body + "\r\n0\r\n\r\n", body},
		"nothing":          {request("POST", "/exec", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 0"), ""},
		"no body":          {request("PUT", "/exec", "Connection: Upgrade", "Upgrade: tcp"), ""},
		"waits to be told": {request("POST", "/exec", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 27", "Expect: 100-continue"), body},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{timeout: longTunnel, upstream: script(func(u *demo.Conn) {
				r, err := u.ReadRequest()
				if err != nil {
					return
				}
				if r.Header.Get("Expect") != "" {
					u.WriteString("HTTP/1.1 100 Continue\r\n\r\n")
				}
				b, _ := io.ReadAll(r.Body)
				u.WriteString("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\ngot:" + string(b) + ";")
				_, _ = io.Copy(u, u.Reader())
				_ = u.CloseWrite()
			})})
			caller := k.dial().send(c.request)
			head := caller.rawHead()
			if strings.HasPrefix(head, "HTTP/1.1 100 ") {
				head = caller.send(c.body).rawHead()
			}
			if !strings.HasPrefix(head, "HTTP/1.1 101 ") || strings.Contains(head, "Transfer-Encoding") {
				t.Fatalf("got %q", head)
			}
			caller.read("got:" + c.body + ";")
			caller.send("typed").read("typed")
			caller.half().ended()
		})
	}
}

// The body may arrive, and what belongs to the tunnel behind it, when the upstream has switched already.
func TestUpgradeBeforeTheBodyIsThere(t *testing.T) {
	k := start(t, setup{timeout: longTunnel, upstream: script(func(u *demo.Conn) {
		if _, err := u.ReadHead(); err == nil {
			u.WriteString("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			_, _ = io.Copy(u, u.Reader())
			_ = u.CloseWrite()
		}
	})})
	c := k.dial().send(request("POST", "/exec", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 10") + "five.")
	k.any("the body is on its way", in(phaseUpload))
	c.send("five.typed")
	if head := c.rawHead(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("got %q", head)
	}
	c.read("five.five.typed")
	c.half().ended()
}

// What the caller sends behind a handshake that failed may be of the other protocol, and is no request.
func TestUpgradeRefused(t *testing.T) {
	t.Run("by the upstream", func(t *testing.T) {
		k := start(t, setup{})
		c := k.dial().send(get("/echo", "Connection: Upgrade", "Upgrade: echo"))
		a := c.answer()
		if s := a.seen(k); s.Headers["Upgrade"] == nil || !a.Close {
			t.Errorf("the upstream was not asked, or the caller not told of the end: %v %v", s.Headers, a.Close)
		}
		c.send("\x81\x05hello").ended()
	})
	t.Run("by us", func(t *testing.T) {
		k := start(t, setup{upstream: once("HTTP/1.1 oops\r\n\r\n", (*demo.Conn).WaitClosed)})
		c := k.dial().send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
		a := c.answer()
		a.problem(k, fault.ResponseMalformed)
		if !a.Close {
			t.Error("the caller was not told of the end")
		}
		c.send("\x81\x05hello").ended()
	})
	t.Run("with the next bytes behind it", func(t *testing.T) {
		k := start(t, setup{})
		c := k.dial().send(get("/echo", "Connection: Upgrade", "Upgrade: echo") + get("/next"))
		c.answer().seen(k)
		c.ended()
		if n := k.upstream.Stats().Requests; n != 1 {
			t.Errorf("the upstream saw %d requests", n)
		}
	})
}

func TestH2CIsStripped(t *testing.T) {
	k := start(t, setup{})
	s := k.dial().send(get("/echo", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")).answer().seen(k)
	if s.Headers["Upgrade"] != nil || s.Headers["Http2-Settings"] != nil || s.Headers["Connection"] != nil {
		t.Errorf("the upstream saw %v", s.Headers)
	}
}

func TestUnasked101(t *testing.T) {
	for name, text := range map[string]string{
		"nothing asked":    get("/"),
		"another protocol": get("/", "Connection: Upgrade", "Upgrade: websocket"),
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, setup{upstream: answers(switching)})
			k.dial().send(text).answer().problem(k, fault.UpgradeFailed)
			k.faulted(fault.UpgradeFailed, 502)
			k.until("the upstream's connection is closed", func() bool { return k.upstream.Stats().Open == 0 })
		})
	}
}
