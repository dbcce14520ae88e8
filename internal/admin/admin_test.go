package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	for i := 0; runtime.NumGoroutine() > 1 && i < 200; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); code == 0 && n > 1 {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%d goroutines are left:\n%s\n", n-1, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

// options returns what a healthy service would answer.
func options() Options {
	return Options{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "mtls_proxy_build_info 1") }),
		Status:  func() any { return map[string]any{"generation": 3} },
		Ready:   func() (bool, string) { return true, "" },
		Reload:  func(context.Context) ReloadResult { return ReloadResult{OK: true, Generation: 4} },
		Endpoint: func(_ context.Context, c EndpointChange) EndpointResult {
			if c.Address != "a:1" {
				return EndpointResult{Error: "there is no " + c.Address}
			}
			return EndpointResult{OK: true, Changed: []string{fmt.Sprintf("%s %s resume=%v by %s", c.Upstream, c.Address, c.Resume, c.By)}}
		},
	}
}

// settings returns loopback TCP and a Unix socket that is in nobody's way.
func settings(t *testing.T) Settings {
	return Settings{
		Address: "127.0.0.1:0",
		Socket:  filepath.Join(t.TempDir(), "admin.sock"),
		Open:    []string{"/livez", "/readyz", "/metrics"},
	}
}

func hash(t *testing.T, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

// start serves set until the test is over.
func start(t *testing.T, o Options, set Settings) *Server {
	t.Helper()
	if o.Report == nil {
		o.Report = func(err error) { t.Error(err) }
	}
	s := New(o)
	apply(t, s, set)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})
	return s
}

func apply(t *testing.T, s *Server, set Settings) (warnings []string) {
	t.Helper()
	c, err := s.Prepare(set)
	if err != nil {
		t.Fatal(err)
	}
	c.Commit()
	return c.Warnings()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request on a connection of its own.
func ask(t *testing.T, network, address, method, path string, edit func(*http.Request)) answer {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	host := "localhost"
	if network == "tcp" {
		host = address
	}
	req, err := http.NewRequest(method, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func TestWhoMayDoWhat(t *testing.T) {
	ops := func(r *http.Request) { r.SetBasicAuth("ops", "right") }
	wrong := func(r *http.Request) { r.SetBasicAuth("ops", "wrong") }
	stranger := func(r *http.Request) { r.SetBasicAuth("nobody", "right") }
	for _, tt := range []struct {
		name         string
		unix         bool
		users        bool
		method, path string
		edit         func(*http.Request)
		status       int
		has          string // in the body
		field, value string // in the head
	}{
		{name: "livez is open", method: "GET", path: "/livez", status: 200, has: "ok"},
		{name: "readyz is open", method: "GET", path: "/readyz", status: 200, has: "ready"},
		{name: "metrics are open", method: "GET", path: "/metrics", status: 200, has: "build_info"},
		{name: "HEAD as well", method: "HEAD", path: "/metrics", status: 200},
		{name: "status needs users", method: "GET", path: "/status", status: 403, has: "curl --unix-socket"},
		{name: "the index needs users", method: "GET", path: "/", status: 403, has: "[admin] users"},
		{name: "nothing there", method: "GET", path: "/x", status: 404},
		{name: "TCP changes nothing", method: "POST", path: "/reload", status: 405, has: "Unix socket", field: "Allow", value: "GET, HEAD"},
		{name: "TCP has no reload to read", method: "GET", path: "/reload", status: 404},
		{name: "open stays open with users", users: true, method: "GET", path: "/livez", status: 200},
		{name: "no password", users: true, method: "GET", path: "/status", status: 401, field: "Www-Authenticate", value: `Basic realm="mtls-proxy", charset="UTF-8"`},
		{name: "no password hides what is there", users: true, method: "GET", path: "/x", status: 401},
		{name: "right password", users: true, method: "GET", path: "/status", edit: ops, status: 200, has: `"generation": 3`, field: "Content-Type", value: "application/json"},
		{name: "right password, index", users: true, method: "GET", path: "/", edit: ops, status: 200, has: "/metrics"},
		{name: "right password, nothing there", users: true, method: "GET", path: "/x", edit: ops, status: 404},
		{name: "right password, no change over TCP", users: true, method: "POST", path: "/reload", edit: ops, status: 405},
		{name: "wrong password", users: true, method: "GET", path: "/status", edit: wrong, status: 401, has: "wrong"},
		{name: "unknown user", users: true, method: "GET", path: "/status", edit: stranger, status: 401, has: "wrong"},
		{name: "the socket asks for nothing", unix: true, users: true, method: "GET", path: "/status", status: 200, has: "generation"},
		{name: "the socket reloads", unix: true, method: "POST", path: "/reload", status: 200, has: `"ok": true`},
		{name: "TCP drains nothing", method: "POST", path: "/endpoint/drain?upstream=u&address=a:1", status: 405, has: "Unix socket"},
		{name: "TCP has no drain to read", method: "GET", path: "/endpoint/drain", status: 404},
		{name: "right password, no drain over TCP", users: true, method: "POST", path: "/endpoint/drain?upstream=u&address=a:1", edit: ops, status: 405},
		{name: "the socket drains", unix: true, method: "POST", path: "/endpoint/drain?upstream=u&address=a:1", status: 200, has: "u a:1 resume=false by "},
		{name: "the socket resumes", unix: true, method: "POST", path: "/endpoint/resume?upstream=u&address=a:1", status: 200, has: "u a:1 resume=true by "},
		{name: "the socket knows who drains", unix: true, method: "POST", path: "/endpoint/drain?upstream=u&address=a:1", status: 200, has: fmt.Sprintf("uid %d, pid %d", os.Getuid(), os.Getpid())},
		{name: "an endpoint that is none", unix: true, method: "POST", path: "/endpoint/drain?upstream=u&address=x", status: 422, has: "there is no x"},
		{name: "no endpoint", unix: true, method: "POST", path: "/endpoint/drain?upstream=u", status: 400, has: "address=ADDRESS"},
		{name: "a drain is no reading", unix: true, method: "GET", path: "/endpoint/drain", status: 405, field: "Allow", value: "POST"},
		{name: "a reload is no reading", unix: true, method: "GET", path: "/reload", status: 405, field: "Allow", value: "POST"},
		{name: "reading takes no POST", unix: true, method: "POST", path: "/status", status: 405, field: "Allow", value: "GET, HEAD"},
		{name: "the socket's index names the change", unix: true, method: "GET", path: "/", status: 200, has: "POST /reload"},
		{name: "nothing there on the socket", unix: true, method: "GET", path: "/x", status: 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := settings(t)
			if tt.users {
				set.Users = map[string]string{"ops": hash(t, "right")}
			}
			s := start(t, options(), set)
			network, address := "tcp", s.Addresses()[0]
			if tt.unix {
				network, address = "unix", set.Socket
			}
			got := ask(t, network, address, tt.method, tt.path, tt.edit)
			if got.status != tt.status || !strings.Contains(got.body, tt.has) {
				t.Errorf("%s %s = %d %s; want %d with %q", tt.method, tt.path, got.status, got.body, tt.status, tt.has)
			}
			if tt.field != "" && got.header.Get(tt.field) != tt.value {
				t.Errorf("%s: %q; want %q", tt.field, got.header.Get(tt.field), tt.value)
			}
			for field, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			} {
				if v := got.header.Get(field); v != want {
					t.Errorf("%s: %q; want %q", field, v, want)
				}
			}
			if v := got.header.Get("Content-Security-Policy"); !strings.HasPrefix(v, "default-src 'none'") {
				t.Errorf("Content-Security-Policy: %q", v)
			}
		})
	}
}

func TestBrowserGuard(t *testing.T) {
	set := settings(t)
	s := start(t, options(), set)
	address := s.Addresses()[0]
	_, port, _ := net.SplitHostPort(address)
	field := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	for _, tt := range []struct {
		name   string
		edit   func(*http.Request)
		status int
	}{
		{"the address", nil, 200},
		{"localhost", host("localhost:" + port), 200},
		{"localhost in capitals with a dot", host("LOCALHOST.:" + port), 200},
		{"below localhost", host("admin.localhost"), 200},
		{"through a forwarded port", host("localhost:9999"), 200},
		{"the other loopback address", host("[::1]:" + port), 200},
		{"a name that leads here", host("rebound.example"), 403},
		{"a name that begins like ours", host("localhost.example"), 403},
		{"an address that is not here", host("192.0.2.1"), 403},
		{"typed by the user", field("Sec-Fetch-Site", "none"), 200},
		{"from our own page", field("Sec-Fetch-Site", "same-origin"), 200},
		{"from a sibling", field("Sec-Fetch-Site", "same-site"), 403},
		{"from another site", field("Sec-Fetch-Site", "cross-site"), 403},
		{"our origin", field("Origin", "http://"+address), 200},
		{"another origin", field("Origin", "https://example.net"), 403},
		{"our name at another port", field("Origin", "http://127.0.0.1:1"), 403},
		{"no origin that could be told", field("Origin", "null"), 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(t, "tcp", address, "GET", "/livez", tt.edit)
			if got.status != tt.status {
				t.Errorf("GET /livez = %d %s; want %d", got.status, got.body, tt.status)
			}
			if got.status == 403 && (got.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(got.body, `"detail":"`)) {
				t.Errorf("refused with %q %s; want a problem that explains itself", got.header.Get("Content-Type"), got.body)
			}
		})
	}
	if got := s.Stats().Denied; got != 8 {
		t.Errorf("Stats().Denied = %d; want 8", got)
	}
	if got := ask(t, "unix", set.Socket, "POST", "/reload", field("Sec-Fetch-Site", "cross-site")); got.status != 403 {
		t.Errorf("POST /reload for another site over the Unix socket = %d; want 403", got.status)
	}
}

func TestReadyzTellsWhyNot(t *testing.T) {
	o := options()
	o.Ready = func() (bool, string) { return false, "draining" }
	s := start(t, o, settings(t))
	if got := ask(t, "tcp", s.Addresses()[0], "GET", "/readyz", nil); got.status != 503 || got.body != "not ready: draining\n" {
		t.Errorf("GET /readyz = %d %q; want 503 and the reason", got.status, got.body)
	}
}

func TestPanicIsReportedAndCutsTheConnection(t *testing.T) {
	o := options()
	o.Status = func() any { panic("no status") }
	reported := make(chan error, 1)
	o.Report = func(err error) { reported <- err }
	set := settings(t)
	start(t, o, set)
	if _, err := (&Client{Socket: set.Socket}).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "without an answer") {
		t.Errorf("Status() = %v; want a connection that was cut", err)
	}
	if err := <-reported; !strings.Contains(err.Error(), "GET /status: panic: no status") {
		t.Errorf("reported %v; want the panic", err)
	}
}

func TestTakenPortIsAWarningUntilItIsFree(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	set := settings(t)
	set.Address = other.Addr().String()
	s := New(options())
	defer s.Close()
	if w := apply(t, s, set); len(w) != 1 || !strings.Contains(w[0], set.Address+": address already in use") {
		t.Fatalf("Warnings() = %q; want one about %s", w, set.Address)
	}
	if got := s.Addresses(); len(got) != 1 || got[0] != "unix:"+set.Socket {
		t.Errorf("Addresses() = %q; want the Unix socket alone", got)
	}
	other.Close()
	if w := apply(t, s, set); len(w) != 0 || len(s.Addresses()) != 2 {
		t.Errorf("once the port is free: warnings %q, addresses %q; want none and two", w, s.Addresses())
	}
}

func TestMovingAWorkingAddressToATakenPortIsAnError(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	set := settings(t)
	s := start(t, options(), set)
	before := s.Addresses()[0]
	set.Address = other.Addr().String()
	if _, err := s.Prepare(set); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Prepare() = %v; want the address in use", err)
	}
	if got := ask(t, "tcp", before, "GET", "/livez", nil); got.status != 200 {
		t.Errorf("the old address answers %d; want 200", got.status)
	}
}

func TestSocketThatCannotBeBound(t *testing.T) {
	set := settings(t)
	set.Socket = filepath.Join(t.TempDir(), "missing", "admin.sock")
	s := New(options())
	defer s.Close()
	if _, err := s.Prepare(set); err == nil || !strings.Contains(err.Error(), "has to be there") {
		t.Errorf("Prepare() with a path that was asked for = %v; want an error about the folder", err)
	}
	set.SocketOptional = true
	if w := apply(t, s, set); len(w) != 1 || !strings.Contains(w[0], "cannot reach this process") {
		t.Errorf("Warnings() with the default path = %q; want one", w)
	}
}

func TestSocketIsForRootAndItsGroup(t *testing.T) {
	set := settings(t)
	set.Group = fmt.Sprint(os.Getegid())
	start(t, options(), set)
	info, err := os.Stat(set.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o660 {
		t.Errorf("mode %v; want 0660", got)
	}
}

func TestSocketWithoutAGroupIsForItsUserAlone(t *testing.T) {
	if _, err := user.LookupGroup(DefaultGroup); err == nil {
		t.Skip("this machine has the group " + DefaultGroup)
	}
	set := settings(t)
	start(t, options(), set)
	info, err := os.Stat(set.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %v; want 0600", got)
	}
}

func TestSlowHeadIsCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a timeout of a real connection")
	}
	s := start(t, options(), settings(t))
	c, err := net.Dial("tcp", s.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: loc"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(headerTimeout + 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("half a head keeps the connection for more than %v", headerTimeout)
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	secret := "$2y$31$" + strings.Repeat("a", 53)
	for _, tt := range []struct {
		name string
		edit func(*Settings)
		want string
	}{
		{"beyond loopback", func(s *Settings) { s.Address = "0.0.0.0:8081" }, "needs [admin] users and tls"},
		{"beyond loopback without TLS", func(s *Settings) {
			s.Address, s.Users = "192.0.2.1:8081", map[string]string{"ops": hash(t, "x")}
		}, "needs [admin] tls"},
		{"every interface", func(s *Settings) { s.Address = ":8081" }, "is not loopback"},
		{"no port", func(s *Settings) { s.Address = "127.0.0.1" }, "is not IP:PORT"},
		{"a password instead of its hash", func(s *Settings) { s.Users = map[string]string{"ops": "hunter2"} }, `users: "ops": the value is no bcrypt hash`},
		{"a hash that takes hours", func(s *Settings) { s.Users = map[string]string{"ops": secret} }, "cost 31"},
		{"a name that cannot be sent", func(s *Settings) { s.Users = map[string]string{"a:b": hash(t, "x")} }, "colon"},
		{"an open path that is none", func(s *Settings) { s.Open = []string{"/reload"} }, `open: "/reload" is none of / /livez`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := settings(t)
			tt.edit(&set)
			_, err := New(options()).Prepare(set)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Prepare() = %v; want it to contain %s", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), secret)) {
				t.Errorf("Prepare() = %v quotes a secret", err)
			}
		})
	}
}

func TestAbortBindsNothing(t *testing.T) {
	set := settings(t)
	s := New(options())
	c, err := s.Prepare(set)
	if err != nil {
		t.Fatal(err)
	}
	c.Abort()
	if got := s.Addresses(); len(got) != 0 {
		t.Errorf("Addresses() = %q; want none", got)
	}
	if _, err := os.Lstat(set.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's path: %v; want none", err)
	}
	apply(t, s, set)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestReloadThatMovesItsOwnSocketIsAnswered(t *testing.T) {
	set := settings(t)
	next := set
	next.Socket = filepath.Join(t.TempDir(), "moved.sock")
	var s *Server
	o := options()
	o.Reload = func(context.Context) ReloadResult {
		apply(t, s, next)
		return ReloadResult{OK: true, Generation: 7}
	}
	s = start(t, o, set)
	got, err := (&Client{Socket: set.Socket}).Reload(t.Context())
	if err != nil || !got.OK || got.Generation != 7 {
		t.Fatalf("Reload() = %+v, %v; want generation 7", got, err)
	}
	client := Client{Socket: next.Socket}
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("Status() on the new socket = %v", err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(set.Socket); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the old socket's path is still there")
		}
	}
}

func TestReloadOutlivesItsCallerAndEndsWithTheServer(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	o := options()
	o.Reload = func(ctx context.Context) ReloadResult {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return ReloadResult{}
	}
	s := New(o)
	set := settings(t)
	apply(t, s, set)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- s.Serve(ctx) }()
	caller, hangUp := context.WithCancel(context.Background())
	go func() {
		<-begun
		hangUp()
	}()
	if _, err := (&Client{Socket: set.Socket}).Reload(caller); !errors.Is(err, context.Canceled) {
		t.Errorf("Reload() of a caller that hung up = %v; want context.Canceled", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the reload ended with its caller: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	stop()
	<-ended
	if err := <-served; err != nil {
		t.Errorf("Serve() = %v", err)
	}
}

func TestNewUsersHoldFromTheReloadOn(t *testing.T) {
	set := settings(t)
	set.Users = map[string]string{"ops": hash(t, "old")}
	s := start(t, options(), set)
	address := s.Addresses()[0]
	status := func(password string) int {
		return ask(t, "tcp", address, "GET", "/status", func(r *http.Request) { r.SetBasicAuth("ops", password) }).status
	}
	if got := status("old"); got != 200 {
		t.Fatalf("the old password = %d; want 200", got)
	}
	set.Users = map[string]string{"ops": hash(t, "new")}
	apply(t, s, set)
	if before, after := status("old"), status("new"); before != 401 || after != 200 {
		t.Errorf("old and new password = %d, %d; want 401, 200", before, after)
	}
	if got := s.Stats().AuthFailures; got != 1 {
		t.Errorf("Stats().AuthFailures = %d; want 1", got)
	}
}

func TestTLSComesAndGoesWithASettingOfTheSameAddress(t *testing.T) {
	set := settings(t)
	set.Address = free(t)
	s := start(t, options(), set)
	cert, pool := certificate(t)
	set.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	apply(t, s, set)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := client.Get("https://" + set.Address + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("GET /livez over TLS = %d, Strict-Transport-Security %q", resp.StatusCode, resp.Header.Get("Strict-Transport-Security"))
	}
	set.TLS = nil
	apply(t, s, set)
	if got := ask(t, "tcp", set.Address, "GET", "/livez", nil); got.status != 200 {
		t.Errorf("GET /livez without TLS = %d; want 200", got.status)
	}
}

func TestAnswersThatAreNotReadKeepNobodyOut(t *testing.T) {
	set := settings(t)
	o := options()
	answering := make(chan struct{}, maxConnections)
	o.Metrics = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		answering <- struct{}{}
		<-r.Context().Done()
	})
	s := start(t, o, set)
	for range maxConnections {
		c, err := net.Dial("tcp", s.Addresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-answering
	}
	if got := ask(t, "tcp", s.Addresses()[0], "GET", "/livez", nil); got.status != 200 {
		t.Errorf("GET /livez meanwhile = %d; want 200", got.status)
	}
}

func TestFloodOfConnectionsKeepsNobodyOut(t *testing.T) {
	set := settings(t)
	s := start(t, options(), set)
	var flood []net.Conn
	for range maxConnections + 20 {
		c, err := net.Dial("tcp", s.Addresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHo"); err != nil && len(flood) == 0 {
			t.Fatal(err)
		}
		flood = append(flood, c)
	}
	first := flood[0]
	if err := first.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read on the connection that is silent for longest: %v; want it closed", err)
	}
	if got := ask(t, "tcp", s.Addresses()[0], "GET", "/livez", nil); got.status != 200 {
		t.Errorf("GET /livez meanwhile = %d; want 200", got.status)
	}
	if _, err := (&Client{Socket: set.Socket}).Status(t.Context()); err != nil {
		t.Errorf("Status() meanwhile = %v", err)
	}
	for _, c := range flood {
		c.Close()
	}
}

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
