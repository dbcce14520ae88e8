package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// patience is how long a test waits for an event before it says that there was none.
const patience = 20 * time.Second

// setup says what stands around a Server. Its zero value is good: an upstream with demo's routes, a listener "http" on
// loopback, no rate limit.
type setup struct {
	upstream demo.UpstreamOptions            // "default"
	others   map[string]demo.UpstreamOptions // by name; they need a route in config
	settings string                          // lines of [upstream.default]
	timeout  string                          // lines of [upstream.default.timeout]; "": the sweeper looks every 10 ms
	config   string                          // the rest of the file
}

// kit is a Server between an upstream of demo and whoever dials it.
type kit struct {
	testing.TB
	setup    setup
	dir      string
	metrics  *metrics.Metrics
	log      *logging.Log
	lines    *lines
	store    *snapshot.Store
	server   *Server
	upstream *demo.Upstream
	others   map[string]*demo.Upstream
	address  string // of the listener "http"
	stops    []func()
	drained  bool
	retired  []*snapshot.Snapshot
}

// lines is where the log goes.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// authority issues all certificates of the tests.
var authority = sync.OnceValues(func() (*demo.Authority, error) { return demo.NewAuthority(demo.AuthorityOptions{}) })

// start builds everything and serves until the test is over. Then nothing may be left: no goroutine, no place taken.
func start(t testing.TB, s setup) *kit {
	t.Helper()
	k := &kit{TB: t, setup: s, dir: t.TempDir(), lines: new(lines), store: new(snapshot.Store), others: make(map[string]*demo.Upstream)}
	a, err := authority()
	k.must(err)
	client, err := a.Client("caller")
	k.must(err)
	_, err = a.Write(k.dir, "ca")
	k.must(err)
	_, _, err = client.Write(k.dir, "client")
	k.must(err)
	open := func(o demo.UpstreamOptions) *demo.Upstream {
		o.Authority = a
		u, err := demo.NewUpstream(o)
		k.must(err)
		t.Cleanup(func() { _ = u.Close() })
		return u
	}
	k.upstream = open(s.upstream)
	for name, o := range s.others {
		k.others[name] = open(o)
	}
	k.log, err = logging.New(logging.Options{Level: "info", Format: "json", Stderr: k.lines})
	k.must(err)
	k.metrics = metrics.New(metrics.Options{Faults: faults()})
	k.store.Publish(k.build(k.text(s.config), nil))
	k.metrics.Publish(k.store.Current().Publication())
	k.server = NewServer(Options{Store: k.store, Metrics: k.metrics, Log: k.log})
	t.Cleanup(k.finish)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	k.must(err)
	k.address = ln.Addr().String()
	k.serve("http", ln)
	return k
}

func faults() (list []metrics.Fault) {
	for _, token := range fault.Tokens() {
		list = append(list, metrics.Fault{Token: string(token), Blame: token.Blame().String()})
	}
	return list
}

func (k *kit) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

// text is a whole configuration file around the given lines.
func (k *kit) text(rest string) string {
	timeout := k.setup.timeout
	if timeout == "" {
		timeout = `tunnel_idle = "40ms"` // nothing is a tunnel in most tests, but the sweeper goes by the shortest timeout
	}
	limit := ""
	if !strings.Contains(rest, "[rate_limit]") {
		limit = "[rate_limit]\nrequests_per_second = 0\n"
	}
	text := fmt.Sprintf("[identity.default]\ncertificate = \"client.crt\"\nkey = \"client.key\"\n[trust.default]\nca = \"ca.crt\"\n"+
		"[upstream.default]\nurl = %q\n%s\n[upstream.default.timeout]\n%s\n", k.upstream.URL(), k.setup.settings, timeout)
	for name, u := range k.others {
		text += fmt.Sprintf("[upstream.%s]\nurl = %q\n", name, u.URL())
	}
	return text + limit + rest
}

func (k *kit) build(text string, prev *snapshot.Snapshot) *snapshot.Snapshot {
	k.Helper()
	file := filepath.Join(k.dir, "config.toml")
	k.must(os.WriteFile(file, []byte(text), 0o600))
	cfg, err := config.Load(file, config.Options{})
	if err != nil {
		k.Fatalf("%v\n%s", err, text)
	}
	next, err := snapshot.Build(k.Context(), cfg, prev, k.metrics)
	k.must(err)
	return next
}

// reload publishes what the configuration with other lines comes to, as internal/reload does.
func (k *kit) reload(rest string) {
	k.Helper()
	prev := k.store.Current()
	next := k.build(k.text(rest), prev)
	k.store.Publish(next)
	k.metrics.Publish(next.Publication())
	prev.Retire(next)
	k.retired = append(k.retired, prev)
}

// serve accepts on ln until the test is over or the returned function was called.
func (k *kit) serve(listener string, ln net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.server.Serve(ctx, listener, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			k.Errorf("Serve(%q) = %v", listener, err)
		}
		_ = ln.Close()
	})
	k.stops = append(k.stops, stop)
	return stop
}

// unix serves a Unix socket and returns its path.
func (k *kit) unix() string {
	k.Helper()
	path := filepath.Join(k.dir, "s")
	ln, err := net.Listen("unix", path)
	k.must(err)
	k.serve("http", ln)
	return path
}

func (k *kit) stopServing() {
	for _, stop := range k.stops {
		stop()
	}
}

// drain stops everything within d.
func (k *kit) drain(d time.Duration) error {
	k.stopServing()
	k.drained = true
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	_, err := k.server.Drain(ctx, 0)
	return err
}

// finish ends the server and looks for what should not be left.
func (k *kit) finish() {
	if !k.drained {
		if err := k.drain(patience); err != nil {
			k.Errorf("Drain() = %v", err)
		}
	}
	l := &k.store.Current().Limits
	if n := l.Requests.InUse(); n != 0 {
		k.Errorf("%d places among the requests are still taken", n)
	}
	if n := l.Connections.InUse(); n != 0 {
		k.Errorf("%d places among the connections are still taken", n)
	}
	for _, snap := range append(k.retired, k.store.Current()) {
		for _, u := range snap.Upstreams() {
			k.leftOf(u)
		}
		snap.Retire(nil)
	}
	if n := k.store.Current().Buffers().Lent(); n != 0 {
		k.Errorf("%d large buffers are still lent", n)
	}
	scrape := k.scrape()
	for _, line := range strings.Split(scrape, "\n") {
		for _, name := range []string{"mtls_proxy_requests_in_progress{", "mtls_proxy_active_connections{"} {
			if strings.HasPrefix(line, name) && !strings.HasSuffix(line, " 0") {
				k.Errorf("after the end: %s", line)
			}
		}
	}
	k.must(k.log.Close(patience))
	if left := ours(); len(left) > 0 && !eventually(func() bool { left = ours(); return len(left) == 0 }) {
		k.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
	}
}

func (k *kit) leftOf(u *upstream.Upstream) {
	if _, active := u.Stats(); active != 0 {
		k.Errorf("%d connections to %s are still in use", active, u.Name())
	}
	for _, e := range u.Endpoints() {
		if e.Outstanding != 0 {
			k.Errorf("%d exchanges still use %s", e.Outstanding, e.Address)
		}
	}
}

// ours returns the stacks of goroutines that the packages under test started.
func ours() (left []string) {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		_, by, ok := strings.Cut(stack, "created by ")
		if ok && strings.Contains(by, "mtls-proxy/internal/") && !strings.Contains(by, "internal/demo.") && !strings.Contains(by, "_test.go") {
			left = append(left, stack)
		}
	}
	return left
}

// eventually asks until the answer is yes or patience ends.
func eventually(ask func() bool) bool {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-limit.C:
			return false
		}
	}
	return true
}

// until waits for an event.
func (k *kit) until(what string, ask func() bool) {
	k.Helper()
	if !eventually(ask) {
		k.Fatalf("never: %s", what)
	}
}

// take waits for a value.
func take[T any](k *kit, what string, ch <-chan T) (v T) {
	k.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		k.Fatalf("never: %s", what)
	}
	return v
}

func (k *kit) scrape() string {
	rec := httptest.NewRecorder()
	k.metrics.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return rec.Body.String()
}

// metric is the value of a series, written as in a scrape; 0 when it is not there.
func (k *kit) metric(series string) float64 {
	for _, line := range strings.Split(k.scrape(), "\n") {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			f, err := strconv.ParseFloat(value, 64)
			k.must(err)
			return f
		}
	}
	return 0
}

// record is a line of the log.
type record map[string]any

func (k *kit) records() (list []record) {
	k.Helper()
	if !k.log.Flush(patience) {
		k.Fatal("the log is not written")
	}
	for line := range strings.SplitSeq(strings.TrimSpace(k.lines.String()), "\n") {
		if line == "" {
			continue
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			k.Fatalf("%v in %q", err, line)
		}
		list = append(list, r)
	}
	return list
}

// faulted waits for the record of the one fault there was, which must have the given token and status.
func (k *kit) faulted(token fault.Token, status int) record {
	k.Helper()
	var list []record
	k.until("a record of "+string(token), func() bool { list = k.records(); return len(list) > 0 })
	if len(list) != 1 || list[0]["fault"] != string(token) || list[0]["status"] != float64(status) {
		k.Fatalf("want one record of %s with status %d, got %v", token, status, list)
	}
	series := fmt.Sprintf("mtls_proxy_errors_total{blame=%q,fault=%q}", token.Blame().String(), token)
	if n := k.metric(series); n != 1 {
		k.Errorf("%s is %v, want 1\n%s", series, n, grep(k.scrape(), "mtls_proxy_errors_total"))
	}
	return list[0]
}

func grep(text, what string) string {
	var found []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, what) && !strings.HasSuffix(line, " 0") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "\n")
}

// active is how many connections to the default upstream carry an exchange.
func (k *kit) active() int {
	_, n := k.store.Current().Upstreams()[0].Stats()
	return n
}

// idle is how many connections the pool of the default upstream holds.
func (k *kit) idle() int {
	n, _ := k.store.Current().Upstreams()[0].Stats()
	return n
}

// any waits until one of the sessions is as it should be.
func (k *kit) any(what string, is func(*session) bool) {
	k.Helper()
	k.until(what, func() bool {
		k.server.mu.Lock()
		defer k.server.mu.Unlock()
		for x := range k.server.sessions {
			if is(x) {
				return true
			}
		}
		return false
	})
}

func in(p phase) func(*session) bool {
	return func(x *session) bool { return phaseOf(x.word.Load()) == p }
}

// caller is a program that calls, speaking bytes.
type caller struct {
	net.Conn
	k *kit
	r *bufio.Reader
}

func (k *kit) dial() *caller {
	k.Helper()
	return k.connect("tcp", k.address)
}

func (k *kit) connect(network, address string) *caller {
	k.Helper()
	c, err := net.Dial(network, address)
	k.must(err)
	k.must(c.SetDeadline(time.Now().Add(patience)))
	k.Cleanup(func() { _ = c.Close() })
	return &caller{Conn: c, k: k, r: bufio.NewReader(c)}
}

// send writes all of text at once.
func (c *caller) send(text string) *caller {
	c.k.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.k.Fatal(err)
	}
	return c
}

// half ends the caller's side of the connection.
func (c *caller) half() *caller {
	c.k.Helper()
	c.k.must(c.Conn.(interface{ CloseWrite() error }).CloseWrite())
	return c
}

// answer is a response as the caller saw it.
type answer struct {
	*http.Response
	text string // the body
	err  error  // why that ended too early
}

// answer reads the response to a GET; interim ones as well, each by itself.
func (c *caller) answer() answer {
	c.k.Helper()
	return c.answerTo(http.MethodGet)
}

func (c *caller) answerTo(method string) answer {
	c.k.Helper()
	a := c.headTo(method)
	b, err := io.ReadAll(a.Body)
	a.text, a.err = string(b), err
	return a
}

// headTo reads the head only.
func (c *caller) headTo(method string) answer {
	c.k.Helper()
	r, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.k.Fatalf("read an answer: %v", err)
	}
	return answer{Response: r}
}

// line reads one line.
func (c *caller) line() string {
	c.k.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.k.Fatalf("read a line: %v after %q", err, line)
	}
	return line
}

// rawHead reads a head as it came.
func (c *caller) rawHead() string {
	c.k.Helper()
	var head strings.Builder
	for {
		line := c.line()
		head.WriteString(line)
		if line == "\r\n" {
			return head.String()
		}
	}
}

// ended expects a proper end of the connection, and nothing before it.
func (c *caller) ended() {
	c.k.Helper()
	if b, err := io.ReadAll(c.r); err != nil || len(b) > 0 {
		c.k.Fatalf("want the end of the connection, got %q and %v", b, err)
	}
}

// cut expects the connection to break, and not to end.
func (c *caller) cut() {
	c.k.Helper()
	b, err := io.ReadAll(c.r)
	if !errors.Is(err, syscall.ECONNRESET) {
		c.k.Fatalf("want a reset connection, got %q and %v", b, err)
	}
}

// closed expects that nothing more comes, however the connection ends.
func (c *caller) closed() {
	c.k.Helper()
	b, err := io.ReadAll(c.r)
	if len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.k.Fatalf("want the end of the connection, got %q and %v", b, err)
	}
}

// ok fails unless a is a whole 200.
func (a answer) ok(k *kit) answer { k.Helper(); return a.is(k, http.StatusOK) }

func (a answer) is(k *kit, status int) answer {
	k.Helper()
	if a.StatusCode != status || a.err != nil {
		k.Fatalf("want a whole answer with %d, got %d %v (%v): %.300q", status, a.StatusCode, a.Header, a.err, a.text)
	}
	return a
}

// problem fails unless a is our answer for that fault, in all its places.
func (a answer) problem(k *kit, token fault.Token) answer {
	k.Helper()
	var p struct {
		Fault, Blame, Detail string
		Status               int
		RequestID            string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(a.text), &p); err != nil {
		k.Fatalf("want the problem %s, got %d %v %q: %v", token, a.StatusCode, a.Header, a.text, err)
	}
	want := fmt.Sprintf("details=%q", token)
	if a.StatusCode != token.Status() || p.Fault != string(token) || p.Status != a.StatusCode || p.RequestID == "" || a.err != nil ||
		a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.Header.Get("Proxy-Status"), want) {
		k.Fatalf("want the problem %s, got %d %v (%v): %s", token, a.StatusCode, a.Header, a.err, a.text)
	}
	return a
}

// seen is what demo's /echo says that it got.
func (a answer) seen(k *kit) (s demo.Seen) {
	k.Helper()
	a.ok(k)
	if err := json.Unmarshal([]byte(a.text), &s); err != nil {
		k.Fatalf("%v in %q", err, a.text)
	}
	return s
}

// get is a plain request.
func get(path string, fields ...string) string { return request("GET", path, fields...) }

func request(method, path string, fields ...string) string {
	b := method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n"
	for _, f := range fields {
		b += f + "\r\n"
	}
	return b + "\r\n"
}

// post is a request with a body of that text.
func post(path, body string, fields ...string) string {
	return request("POST", path, append(fields, "Content-Length: "+strconv.Itoa(len(body)))...) + body
}

// script makes options of a function that speaks with each client.
func script(f func(c *demo.Conn)) demo.UpstreamOptions { return demo.UpstreamOptions{Script: f} }

// readWhole reads the next request of c, and its body.
func readWhole(c *demo.Conn) (*http.Request, string, error) {
	r, err := c.ReadRequest()
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

// answers is an upstream that says the same to every request.
func answers(text string) demo.UpstreamOptions {
	return script(func(c *demo.Conn) { c.Answer(text) })
}

// records is an upstream that takes each TLS record for a request and answers it with text. It allocates nothing.
func records(text string) demo.UpstreamOptions {
	return script(func(c *demo.Conn) {
		in, out := make([]byte, 4096), []byte(text)
		for {
			if _, err := c.Conn.Read(in); err != nil {
				return
			}
			if _, err := c.Conn.Write(out); err != nil {
				return
			}
		}
	})
}

// volley sends the same request again and again and reads the answer, which is as long each time. It allocates nothing.
type volley struct {
	net.Conn
	out, in []byte
}

// volley dials and learns how long the answer to text is.
func (k *kit) volley(text string) (*volley, error) {
	c, err := net.Dial("tcp", k.address)
	if err != nil {
		return nil, err
	}
	k.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return nil, err
	}
	v := &volley{Conn: c, out: []byte(text), in: make([]byte, 4096)}
	if _, err := c.Write(v.out); err != nil {
		return nil, err
	}
	n, err := c.Read(v.in)
	v.in = v.in[:n]
	return v, err
}

func (v *volley) exchange() error {
	if _, err := v.Write(v.out); err != nil {
		return err
	}
	_, err := io.ReadFull(v.Conn, v.in)
	return err
}
