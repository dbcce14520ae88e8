package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// versions runs claim for each version of TLS that a server may speak.
func versions(t *testing.T, claim func(t *testing.T, w *world)) {
	t.Helper()
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(v), func(t *testing.T) {
			w := newWorld(t)
			w.o.MinVersion, w.o.MaxVersion = v, v
			claim(t, w)
		})
	}
}

func TestServerSeesOurWholeChain(t *testing.T) {
	lists := map[string]func(t *testing.T, c *tls.Config){
		"its list names our root": func(*testing.T, *tls.Config) {},
		"its list names others": func(t *testing.T, c *tls.Config) {
			c.ClientCAs, c.ClientAuth = newAuthority(t).Pool(), tls.RequireAnyClientCert
		},
		"no list": func(_ *testing.T, c *tls.Config) { c.ClientCAs, c.ClientAuth = nil, tls.RequireAnyClientCert },
	}
	for name, list := range lists {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, w *world) {
				below, err := w.authority.Intermediate(demo.AuthorityOptions{Name: "below"})
				if err != nil {
					t.Fatal(err)
				}
				w.client = issue(t, below, demo.Request{CommonName: "test"})
				w.o.Configure = func(c *tls.Config) { list(t, c) }
				c := w.build(t).dial(t)
				defer c.Close(metrics.ClosedByResponse)
				seen := echo(t, c)
				if seen.Certificate == nil || seen.Certificate.Serial != w.client.Serial() || seen.Certificate.Chain != 2 {
					t.Errorf("the server saw %+v, want serial %s and a chain of 2", seen.Certificate, w.client.Serial())
				}
				if want := tls.VersionName(w.o.MaxVersion); seen.TLS != want || seen.ServerName != "localhost" {
					t.Errorf("the server saw %s for %q, want %s for %q", seen.TLS, seen.ServerName, want, "localhost")
				}
			})
		})
	}
}

func TestFaultTellsWhyOurCertificateWasRefused(t *testing.T) {
	now := time.Now()
	refuse := func(c *tls.Config) {
		c.ClientAuth = tls.RequireAnyClientCert
		c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("not you") }
	}
	const unlisted = "none of the authorities that it says it accepts"
	for name, c := range map[string]struct {
		request   demo.Request
		stranger  bool // our issuer is another than the server's
		configure func(c *tls.Config)
		want      fault.Token
		detail    string // what has to be in it
		not       string // and what not
	}{
		"a stranger":            {stranger: true, want: fault.ClientCAUnknown, detail: unlisted},
		"refused":               {configure: refuse, want: fault.ClientCertificateRejected, not: unlisted},
		"expired":               {request: demo.Request{NotAfter: now.Add(-time.Minute), NotBefore: now.Add(-time.Hour)}, want: fault.ClientCertificateExpired},
		"expired and refused":   {request: demo.Request{NotAfter: now.Add(-time.Minute), NotBefore: now.Add(-time.Hour)}, configure: refuse, want: fault.ClientCertificateExpired},
		"not yet valid":         {request: demo.Request{NotBefore: now.Add(time.Hour)}, configure: refuse, want: fault.ClientCertificateNotYetValid},
		"not meant for clients": {request: demo.Request{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, want: fault.ClientCertificateRejected, not: unlisted},
		// Whatever is wrong with our certificate, this server has not looked at it.
		"expired, no common protocol": {
			request:   demo.Request{NotAfter: now.Add(-time.Minute), NotBefore: now.Add(-time.Hour)},
			configure: func(c *tls.Config) { c.NextProtos = []string{"imap"} }, want: fault.TLSAlert, detail: "ALPN",
		},
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, w *world) {
				issuer := w.authority
				if c.stranger {
					issuer = newAuthority(t)
					w.o.Configure = func(config *tls.Config) { // the demo's authorities share a name
						other, err := demo.NewAuthority(demo.AuthorityOptions{Name: "another"})
						if err != nil {
							t.Error(err)
							return
						}
						config.ClientCAs = other.Pool()
					}
				}
				w.client = issue(t, issuer, c.request)
				if c.configure != nil {
					w.o.Configure = c.configure
				}
				f := w.build(t).refused(t)
				if f.Token != c.want {
					t.Fatalf("fault = %v, want %s (server: %v)", f, c.want, w.server.HandshakeError())
				}
				if !strings.Contains(f.Detail, c.detail) {
					t.Errorf("detail = %q, want %q in it", f.Detail, c.detail)
				}
				if c.not != "" && strings.Contains(f.Detail, c.not) {
					t.Errorf("detail = %q, which is not so", f.Detail)
				}
			})
		})
	}
}

// With TLS 1.3 the refusal comes when we are sending already; the server has hung up, and our writes fail.
func TestFaultOfARefusalOutlivesTheBrokenPipe(t *testing.T) {
	w := newWorld(t)
	w.o.MinVersion = tls.VersionTLS13
	w.o.Configure = func(c *tls.Config) {
		c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("not you") }
	}
	w.build(t)
	for range 20 {
		c := w.dial(t)
		var failed error
		for i := 0; i < 1000 && failed == nil; i++ {
			_, failed = c.Write(make([]byte, 64<<10))
		}
		if failed == nil {
			t.Error("64 MB were written to a server that hung up")
		}
		_, err := c.Read(make([]byte, 1))
		if f := c.Fault(fault.PhaseReceive, err); f == nil || f.Token != fault.ClientCertificateRejected {
			t.Errorf("Write = %v, then Read = %v, fault %v; want %s", failed, err, f, fault.ClientCertificateRejected)
		}
		c.Close(metrics.ClosedFault)
	}
}

func TestFaultTellsWhatIsWrongWithTheServer(t *testing.T) {
	now := time.Now()
	names := []string{"localhost"}
	for name, c := range map[string]struct {
		server demo.Request
		change func(t *testing.T, w *world)
		want   fault.Token
	}{
		"another name":     {demo.Request{Names: []string{"elsewhere.example"}}, nil, fault.ServerNameMismatch},
		"unknown CA":       {demo.Request{Names: names}, func(t *testing.T, w *world) { w.options.Bundle = bundle(t, newAuthority(t)) }, fault.ServerCertificateUntrusted},
		"expired":          {demo.Request{Names: names, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, nil, fault.ServerCertificateExpired},
		"not yet valid":    {demo.Request{Names: names, NotBefore: now.Add(time.Hour)}, nil, fault.ServerCertificateNotYetValid},
		"weak key":         {demo.Request{Names: names, RSABits: 1024}, nil, fault.ServerKeyTooWeak},
		"not for servers":  {demo.Request{Names: names, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, nil, fault.ServerCertificateInvalid},
		"another pin":      {demo.Request{Names: names}, func(_ *testing.T, w *world) { w.options.Peer.Pins = [][32]byte{{1}} }, fault.ServerPinMismatch},
		"another one's ID": {demo.Request{Names: names}, func(_ *testing.T, w *world) { w.options.Peer.Names = []string{"spiffe://a/b"} }, fault.ServerNameMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, w *world) {
				w.o.Certificate = issue(t, w.authority, c.server)
				if c.change != nil {
					c.change(t, w)
				}
				if f := w.build(t).refused(t); f.Token != c.want {
					t.Errorf("fault = %v, want %s", f, c.want)
				}
			})
		})
	}
}

func TestPinnedServerNeedsNoName(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		w.o.Certificate = issue(t, w.authority, demo.Request{Names: []string{"elsewhere.example"}})
		w.options.Peer = trust.Peer{Mode: trust.VerifyPeerPins, Pins: [][32]byte{trust.Pin(w.o.Certificate.Leaf)}}
		c := w.build(t).dial(t)
		defer c.Close(metrics.ClosedByResponse)
		if seen := echo(t, c); seen.Certificate == nil {
			t.Error("the server saw no certificate")
		}
	})
}

func TestOldTLSIsAFault(t *testing.T) {
	w := newWorld(t)
	w.o.MaxVersion, w.options.MinVersion = tls.VersionTLS12, tls.VersionTLS13
	if f := w.build(t).refused(t); f.Token != fault.TLSVersionMismatch {
		t.Errorf("fault = %v, want %s", f, fault.TLSVersionMismatch)
	}
}

func TestResumedSessionsAreVerified(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		w.build(t)
		for i := range 3 {
			c := w.dial(t)
			seen := echo(t, c)
			if want := i > 0; c.resumed != want || seen.Resumed != want {
				t.Errorf("connection %d: resumed = %v, and %v for the server; want %v", i, c.resumed, seen.Resumed, want)
			}
			if seen.Certificate == nil || seen.Certificate.Serial != w.client.Serial() {
				t.Errorf("connection %d: the server saw %+v, want serial %s", i, seen.Certificate, w.client.Serial())
			}
			c.Close(metrics.ClosedByResponse)
		}
		if full, resumed := w.counter(t, "mtls_proxy_tls_handshakes_total", `resumed="no"`),
			w.counter(t, "mtls_proxy_tls_handshakes_total", `resumed="yes"`); full != 1 || resumed != 2 {
			t.Errorf("handshakes = %d full, %d resumed; want 1, 2", full, resumed)
		}
		// No Upstream changes its mind like this. It shows that the session's first verdict is not taken over.
		w.up.peer.Pins = [][32]byte{{1}}
		if f := w.refused(t); f.Token != fault.ServerPinMismatch {
			t.Errorf("fault = %v, want %s", f, fault.ServerPinMismatch)
		}
	})
}

// A server that speaks ML-KEM always gets it. One that does not is asked now and then, and at once after a failure: that
// is how a server looks that wants nothing else any more.
func TestMLKEMIsWithheldOnlyFromWhoDoesNotSpeakIt(t *testing.T) {
	w := newWorld(t)
	var (
		knows   atomic.Pointer[[]tls.CurveID] // the server; nil: all that crypto/tls does
		offered atomic.Bool
	)
	w.o.NoTickets = true
	w.o.Configure = func(c *tls.Config) {
		whole := c.Clone()
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			offered.Store(slices.Contains(hello.SupportedCurves, tls.X25519MLKEM768))
			now := whole.Clone()
			if groups := knows.Load(); groups != nil {
				now.CurvePreferences = *groups
			}
			return now, nil
		}
	}
	w.build(t)
	dial := func(what string, offer bool, want tls.CurveID) {
		t.Helper()
		c := w.dial(t)
		defer c.Close(metrics.ClosedByResponse)
		if got := c.tls.ConnectionState().CurveID; got != want || offered.Load() != offer {
			t.Errorf("%s: agreed on %v, ML-KEM offered: %v; want %v, %v", what, got, offered.Load(), want, offer)
		}
	}
	dial("first", true, tls.X25519MLKEM768)
	dial("second", true, tls.X25519MLKEM768)
	knows.Store(&[]tls.CurveID{tls.CurveP256})
	dial("the server forgot it", true, tls.CurveP256)
	dial("as we know by now", false, tls.CurveP256)
	knows.Store(&[]tls.CurveID{tls.X25519MLKEM768})
	if c, err := w.up.Dial(t.Context()); err == nil {
		c.Close(metrics.ClosedFault)
		t.Fatal("a handshake without a group in common succeeded")
	}
	dial("after a failure", true, tls.X25519MLKEM768)
}

// Small records at the beginning would cost more system calls than they save anybody time.
func TestRecordsAreFullFromTheFirst(t *testing.T) {
	w := newWorld(t)
	first := make(chan int, 1)
	w.o.Script = func(c *demo.Conn) {
		n, _ := c.Read(make([]byte, 32<<10)) // never more than a record
		first <- n
	}
	w.build(t)
	c := w.dial(t)
	defer c.Close(metrics.ClosedFault)
	if _, err := c.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := <-first; got != 16<<10 {
		t.Errorf("the first record has %d bytes, want %d", got, 16<<10)
	}
}

func TestFaultOfServersThatSpeakNoTLS(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, c := range map[string]struct {
		address string
		timeout time.Duration
		want    fault.Token
		detail  string
	}{
		"refused": {closed.Addr().String(), 0, fault.ConnectionRefused, ""},
		"plain HTTP": {listen(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			silence(c)
		}), 0, fault.TLSProtocolError, "plain HTTP"},
		"hangs up":     {listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }), 0, fault.ConnectionReset, ""},
		"says nothing": {listen(t, silence), 20 * time.Millisecond, fault.TLSHandshakeTimeout, ""},
		"says a part": {listen(t, func(c net.Conn) {
			_, _ = c.Write([]byte{22, 3, 3, 1, 0, 2})
			silence(c)
		}), 20 * time.Millisecond, fault.TLSHandshakeTimeout, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.options.Timeout.TLSHandshake = c.timeout
			f := w.buildAt(t, c.address).refused(t)
			if f.Token != c.want || !strings.Contains(f.Detail, c.detail) {
				t.Errorf("fault = %v with %q, want %s with %q", f, f.Detail, c.want, c.detail)
			}
		})
	}
}

func TestDialEndsWithTheCauseOfItsContext(t *testing.T) {
	accepted := make(chan struct{}, 1)
	address := listen(t, func(c net.Conn) {
		accepted <- struct{}{}
		silence(c)
	})
	for name, c := range map[string]struct {
		cause error
		want  fault.Token
	}{
		"a fault":  {fault.New(fault.RequestTimeout, nil), fault.RequestTimeout},
		"no cause": {nil, fault.CallerGone},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).buildAt(t, address)
			ctx, cancel := context.WithCancelCause(context.Background())
			go func() {
				<-accepted
				cancel(c.cause)
			}()
			for _, when := range []string{"during", "before"} { // the second one finds ctx done
				conn, err := w.up.Dial(ctx)
				f, ok := err.(*fault.Fault)
				if conn != nil || !ok || f.Token != c.want {
					t.Errorf("%s: Dial = %v, %v; want %s", when, conn, err, c.want)
				}
			}
		})
	}
}

func TestSameLooksAtEverything(t *testing.T) {
	w := newWorld(t).build(t)
	if o := w.options; !w.all.Same(&o) {
		t.Error("Same() = false of its own options")
	}
	server := func(change func(s *Server)) func(o *Options) {
		return func(o *Options) {
			o.Servers = slices.Clone(o.Servers)
			change(&o.Servers[0])
		}
	}
	for name, change := range map[string]func(o *Options){
		"Name": func(o *Options) { o.Name = "x" }, "URL": func(o *Options) { o.URL = "x" }, "SRV": func(o *Options) { o.SRV = "x" },
		"Address":   server(func(s *Server) { s.Address = "127.0.0.1:1" }),
		"server":    server(func(s *Server) { s.ServerName = "x" }),
		"Host":      server(func(s *Server) { s.Host = "x" }),
		"Weight":    server(func(s *Server) { s.Weight = 2 }),
		"Backup":    server(func(s *Server) { s.Backup = true }),
		"Bind":      func(o *Options) { o.Bind = netip.MustParseAddr("127.0.0.1") },
		"Servers":   func(o *Options) { o.Servers = append(slices.Clone(o.Servers), o.Servers[0]) },
		"Identity":  func(o *Options) { i := *o.Identity; o.Identity = &i },
		"Bundle":    func(o *Options) { o.Bundle = &trust.Bundle{} },
		"peer name": func(o *Options) { o.Peer.ServerName = "x" }, "Mode": func(o *Options) { o.Peer.Mode++ },
		"Names": func(o *Options) { o.Peer.Names = []string{"x"} }, "Pins": func(o *Options) { o.Peer.Pins = [][32]byte{{}} },
		"MinVersion": func(o *Options) { o.MinVersion++ }, "Balance": func(o *Options) { o.Balance = First },
		"Proxy": func(o *Options) { o.Proxy = proxyAt(t, "http://a@127.0.0.1:1", "b") },
		"Pool":  func(o *Options) { o.Pool.MaxAge++ }, "Timeout": func(o *Options) { o.Timeout.TunnelIdle++ },
		"Retry": func(o *Options) { o.Retry.On |= On503 }, "Breaker": func(o *Options) { o.Breaker.Probes++ },
		"Path":     func(o *Options) { o.Check.Path = "/" },
		"Expect":   func(o *Options) { o.Check.Expect = []int{200} },
		"Interval": func(o *Options) { o.Check.Interval++ }, "check's Timeout": func(o *Options) { o.Check.Timeout++ },
		"check's Host":   func(o *Options) { o.Check.Host = "x" },
		"UnhealthyAfter": func(o *Options) { o.Check.UnhealthyAfter++ }, "HealthyAfter": func(o *Options) { o.Check.HealthyAfter++ },
		"Metrics": func(o *Options) { o.Metrics = nil }, "Buffers": func(o *Options) { o.Buffers = nil },
		"DNS": func(o *Options) { o.DNS = new(net.Resolver) },
	} {
		if o := w.options; true {
			if change(&o); w.all.Same(&o) {
				t.Errorf("Same() = true with another %s", name)
			}
		}
	}
}

func TestSameLooksAtEveryField(t *testing.T) {
	// What TestSameLooksAtEverything changes, one by one. A new field belongs there, and into Same.
	for of, want := range map[reflect.Type]int{
		reflect.TypeFor[Options](): 19, reflect.TypeFor[Server](): 5, reflect.TypeFor[Check](): 7, reflect.TypeFor[trust.Peer](): 4,
	} {
		if got := of.NumField(); got != want {
			t.Errorf("%v has %d fields, and Same knows of %d", of, got, want)
		}
	}
}

func TestSameTellsProxiesApart(t *testing.T) {
	w := newWorld(t)
	w.options.Proxy = proxyAt(t, "http://user@127.0.0.1:1", "old")
	w.build(t)
	o := w.options
	if o.Proxy = proxyAt(t, "http://user@127.0.0.1:1", "old"); !w.all.Same(&o) {
		t.Error("Same() = false of an equal proxy")
	}
	if o.Proxy = proxyAt(t, "http://user@127.0.0.1:1", "new"); w.all.Same(&o) {
		t.Error("Same() = true with another password")
	}
	if o.Proxy = nil; w.all.Same(&o) {
		t.Error("Same() = true without the proxy")
	}
}
