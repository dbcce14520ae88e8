package demo

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain fails when a goroutine of ours outlives the tests.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			os.Exit(code)
		}
		time.Sleep(10 * time.Millisecond) // the runtime takes its time with the last of them
	}
	buf := make([]byte, 1<<20)
	fmt.Fprintf(os.Stderr, "goroutines outlived the tests:\n%s\n", buf[:runtime.Stack(buf, true)])
	os.Exit(1)
}

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority(AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newUpstream(t *testing.T, o UpstreamOptions) *Upstream {
	t.Helper()
	u, err := NewUpstream(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Errorf("close the upstream: %v", err)
		}
		if n := u.Stats().Open; n != 0 {
			t.Errorf("%d connections are open after Close", n)
		}
	})
	return u
}

func clientConfig(t *testing.T, a *Authority) *tls.Config {
	t.Helper()
	c, err := a.Client("test client")
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		RootCAs:            a.Pool(),
		Certificates:       []tls.Certificate{c.TLS()},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
		ServerName:         "localhost",
		MinVersion:         tls.VersionTLS12,
	}
}

func clientConfigFromFiles(t *testing.T, s Setup) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
	if err != nil {
		t.Error(err)
	}
	ca, err := os.ReadFile(s.CA)
	if err != nil {
		t.Error(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func dial(t *testing.T, u *Upstream, c *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", u.Addr(), c)
	if err != nil {
		t.Fatalf("dial: %v (upstream: %v)", err, u.HandshakeError())
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func httpClient(t *testing.T, c *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: c}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func TestUpstreamTellsWhatItSaw(t *testing.T) {
	a := newAuthority(t)
	u := newUpstream(t, UpstreamOptions{Authority: a})
	config := clientConfig(t, a)
	_, body := get(t, httpClient(t, config), u.URL()+"/a/..//b%2fc?q=1")
	var seen Seen
	if err := json.Unmarshal([]byte(body), &seen); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if want := "/a/..//b%2fc?q=1"; seen.Target != want {
		t.Errorf("target = %q, want %q", seen.Target, want)
	}
	want := fmt.Sprintf("%x", config.Certificates[0].Leaf.SerialNumber)
	if seen.Certificate == nil || seen.Certificate.Serial != want {
		t.Errorf("client certificate = %+v, want serial %s", seen.Certificate, want)
	}
	if seen.TLS != "TLS 1.3" || seen.Resumed || seen.ServerName != "localhost" {
		t.Errorf("tls = %q, resumed = %v, server name = %q", seen.TLS, seen.Resumed, seen.ServerName)
	}
}

func TestUpstreamRefusesStrangers(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	u := newUpstream(t, UpstreamOptions{Authority: a, MaxVersion: tls.VersionTLS12})
	for name, config := range map[string]*tls.Config{"no certificate": {}, "another authority's": clientConfig(t, other)} {
		config.RootCAs, config.ServerName = a.Pool(), "localhost"
		if conn, err := tls.Dial("tcp", u.Addr(), config); err == nil {
			conn.Close()
			t.Errorf("%s: the handshake succeeded", name)
		}
	}
	_ = u.Close() // a stranger may hear of it before it is counted
	if s := u.Stats(); s.HandshakeErrors != 2 || s.Handshakes != 0 || u.HandshakeError() == nil {
		t.Errorf("stats = %+v, error = %v; want two failed handshakes", s, u.HandshakeError())
	}
}

func TestUpstreamCountsResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, noTickets := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, no tickets: %v", tls.VersionName(version), noTickets), func(t *testing.T) {
				a := newAuthority(t)
				u := newUpstream(t, UpstreamOptions{Authority: a, MinVersion: version, MaxVersion: version, NoTickets: noTickets})
				config := clientConfig(t, a)
				for range 3 {
					c := httpClient(t, config)
					get(t, c, u.URL())
					c.CloseIdleConnections()
				}
				want := Stats{Connections: 3, Handshakes: 3, Resumed: 2, Requests: 3}
				if noTickets {
					want.Resumed = 0
				}
				got := u.Stats()
				got.Open = 0 // the upstream may not have seen the end of the last yet
				if got != want {
					t.Errorf("stats = %+v, want %+v", got, want)
				}
			})
		}
	}
}

func TestRoutes(t *testing.T) {
	a := newAuthority(t)
	u := newUpstream(t, UpstreamOptions{Authority: a})
	c := httpClient(t, clientConfig(t, a))
	for _, tc := range []struct {
		path   string
		status int
		check  func(r *http.Response, body string) bool
	}{
		{"/status/503", 503, func(_ *http.Response, body string) bool { return body == "503 Service Unavailable\n" }},
		{"/status/204", 204, func(_ *http.Response, body string) bool { return body == "" }},
		{"/status/abc", 400, nil},
		{"/bytes?n=100000", 200, func(r *http.Response, body string) bool { return len(body) == 100000 && r.ContentLength == 100000 }},
		{"/chunked?n=3", 200, func(r *http.Response, body string) bool {
			return strings.Count(body, "\n") == 3 && r.ContentLength == -1 && r.Trailer.Get("X-Demo-Sum") != ""
		}},
		{"/sse?n=2&every=1ms", 200, func(_ *http.Response, body string) bool { return strings.Contains(body, "data: event 2 of 2\n\n") }},
		{"/delay?d=1ms", 200, nil},
		{"/early", 200, nil},
		{"/redirect?to=/x", 302, func(r *http.Response, _ string) bool { return r.Header.Get("Location") == u.URL()+"/x" }},
		{"/cookie", 200, func(r *http.Response, _ string) bool { return r.Cookies()[0].Secure }},
		{"/upgrade", 426, nil},
	} {
		resp, body := get(t, c, u.URL()+tc.path)
		if resp.StatusCode != tc.status || tc.check != nil && !tc.check(resp, body) {
			t.Errorf("GET %s = %s, %v\n%.200s", tc.path, resp.Status, resp.Header, body)
		}
	}
	resp, err := c.Post(u.URL()+"/upload", "text/plain", strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if want := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; err != nil || !strings.Contains(string(body), want) {
		t.Errorf("POST /upload = %s, %v; want the hash %s", body, err, want)
	}
}

func TestUpgradeEchoesUntilTheClientHalfCloses(t *testing.T) {
	a := newAuthority(t)
	u := newUpstream(t, UpstreamOptions{Authority: a})
	conn := dial(t, u, clientConfig(t, a))
	fmt.Fprint(conn, "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nabc")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("response = %v, %v; want 101", resp, err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "abc" || err != nil {
		t.Errorf("echo = %q, %v; want %q", got, err, "abc")
	}
}

func TestCloseEndsATunnelAndAWaitingRequest(t *testing.T) {
	a := newAuthority(t)
	u := newUpstream(t, UpstreamOptions{Authority: a})
	for _, head := range []string{
		"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nx",
		"GET /sse?every=1h HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn := dial(t, u, clientConfig(t, a))
		fmt.Fprint(conn, head)
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if n := u.Stats().Open; n != 0 {
		t.Errorf("%d connections are open after Close", n)
	}
}

func TestScriptWritesWhatItLikes(t *testing.T) {
	a := newAuthority(t)
	u := newUpstream(t, UpstreamOptions{Authority: a, Script: func(c *Conn) {
		head, err := c.ReadHead()
		if err != nil {
			return
		}
		_, _ = c.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + head[:3])
		switch c.Number {
		case 1:
			_ = c.Truncate()
		case 2:
			_ = c.Reset()
		case 3:
			_ = c.CloseWrite()
			c.WaitClosed()
		}
	}})
	config := clientConfig(t, a)
	for i, want := range []func(error) bool{
		func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) || err == nil }, // crypto/tls takes a FIN between records for the end
		func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || err == nil },
		func(err error) bool { return err == nil },
	} {
		conn := dial(t, u, config)
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		got, err := io.ReadAll(conn)
		if !want(err) || i != 1 && !strings.HasSuffix(string(got), "GET") {
			t.Errorf("connection %d: %q, %v", i+1, got, err)
		}
		conn.Close()
	}
}

func TestCloseEndsAScriptThatWaits(t *testing.T) {
	a := newAuthority(t)
	started := make(chan struct{})
	u := newUpstream(t, UpstreamOptions{Authority: a, Script: func(c *Conn) {
		close(started)
		if c.Wait(time.Hour) {
			t.Error("Wait says that an hour has passed")
		}
	}})
	dial(t, u, clientConfig(t, a))
	<-started
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnswerKeepsTheConnection(t *testing.T) {
	a := newAuthority(t)
	u := newUpstream(t, UpstreamOptions{Authority: a, Script: func(c *Conn) {
		c.Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}})
	c := httpClient(t, clientConfig(t, a))
	for range 3 {
		if _, body := get(t, c, u.URL()); body != "ok" {
			t.Errorf("body = %q, want ok", body)
		}
	}
	if s := u.Stats(); s.Connections != 1 {
		t.Errorf("%d connections for three requests, want 1", s.Connections)
	}
}

func TestIntermediateIsInTheChain(t *testing.T) {
	root := newAuthority(t)
	middle, err := root.Intermediate(AuthorityOptions{Name: "middle"})
	if err != nil {
		t.Fatal(err)
	}
	low, err := middle.Intermediate(AuthorityOptions{Name: "low"})
	if err != nil {
		t.Fatal(err)
	}
	server, err := low.Server()
	if err != nil {
		t.Fatal(err)
	}
	if len(server.Chain) != 3 {
		t.Fatalf("chain of %d certificates, want 3", len(server.Chain))
	}
	u := newUpstream(t, UpstreamOptions{Authority: root, Certificate: server})
	get(t, httpClient(t, clientConfig(t, root)), u.URL())
}
