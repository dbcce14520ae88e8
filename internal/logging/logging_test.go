package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// output collects what a log writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Split(strings.TrimSuffix(o.b.String(), "\n"), "\n")
}

// written runs use with a log of that format and returns the lines it wrote.
func written(t *testing.T, o Options, use func(*Log)) []string {
	t.Helper()
	var out output
	o.Stderr = &out
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	use(l)
	if err := l.Close(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	return out.lines()
}

// body cuts the time off a text line.
func body(line string) string {
	_, after, _ := strings.Cut(line, " ")
	return after
}

func TestTextIsForPeople(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)
	for _, tt := range []struct {
		name string
		use  func(*Log)
		want []string // without the time
	}{
		{"constant message and facts", func(l *Log) {
			l.Logger().Info("generation published", "event", Published, "generation", uint64(4), "took", 12*time.Millisecond)
		}, []string{"INFO  generation published generation=4 took=12ms"}},
		{"levels", func(l *Log) {
			l.Logger().Debug("one")
			l.Logger().Warn("two")
			l.Logger().Error("three")
		}, []string{"DEBUG one", "WARN  two", "ERROR three"}},
		{"named and with", func(l *Log) {
			l.Logger().Named("admin").With("address", "[::1]:8081").Warn("address unavailable", "err", errors.New("in use"))
		}, []string{`WARN  address unavailable part=admin address=[::1]:8081 error="in use"`}},
		{"values are quoted where they must", func(l *Log) {
			l.Logger().Info("values", "a", "", "b", `say "x"`, "c", "k=v", "d", []string{"x", "y"}, "e", at, "f", nil, "g", hclog.Fmt("%03d", 7))
		}, []string{`INFO  values a="" b="say \"x\"" c="k=v" d="[x y]" e=2026-03-04T05:06:07Z f=<nil> g=007`}},
		{"a value without a key", func(l *Log) { l.Logger().Info("odd", "a") }, []string{"INFO  odd extra=a"}},
		{"a key that is no string", func(l *Log) { l.Logger().Info("odd", 1, 2) }, []string{"INFO  odd 1=2"}},
		{"lines follow on lines of their own", func(l *Log) {
			l.Logger().Error("reload refused", "err", errors.New("a.toml:1:1: x\n\thint: y"), "generation", 3)
		}, []string{"ERROR reload refused generation=3", "\terror:", "\ta.toml:1:1: x", "\t\thint: y"}},
		{"control characters do not get through", func(l *Log) {
			l.Logger().Info("bad\x1b[31m", "err", errors.New("\r\x00\xff"))
		}, []string{`INFO  bad\x1b[31m error=\x0d\x00\xff`}},
		{"an exchange", func(l *Log) {
			l.Exchange(&ExchangeRecord{Listener: "http", Route: "/bank", Upstream: "ledger", RequestID: []byte("r1"), Status: 200, Method: []byte("GET"),
				Duration: 1500 * time.Microsecond, Generation: 2, BytesIn: 10, BytesOut: 20})
		}, []string{"INFO  exchange finished method=GET status=200 duration=1.5ms listener=http route=/bank upstream=ledger request_id=r1 generation=2 bytes_in=10 bytes_out=20"}},
		{"a fault ends with what to do", func(l *Log) {
			l.Exchange(&ExchangeRecord{Listener: "http", Status: 502, Fault: "connection_refused", Blame: "upstream",
				Summary: "Nobody listens there.", Fix: "Start it.", Err: errors.New("dial tcp: refused")})
		}, []string{`WARN  exchange failed: Nobody listens there. fault=connection_refused blame=upstream status=502 duration=0s listener=http generation=0 bytes_in=0 bytes_out=0 error="dial tcp: refused" fix="Start it."`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := written(t, Options{Format: "text", Level: "debug"}, tt.use)
			for i, line := range got {
				if !strings.HasPrefix(line, "\t") {
					got[i] = body(line)
				}
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestJSONReadsBack(t *testing.T) {
	lines := written(t, Options{Format: "json"}, func(l *Log) {
		l.Logger().Error("reload refused", "event", ReloadRefused, "err", errors.New("a \"b\"\n\tc\\d\x01é"), "generation", 7)
		l.Exchange(&ExchangeRecord{Status: 504, Fault: "dns_timeout", Blame: "upstream", Fix: "Wait.", Duration: time.Second})
	})
	want := []map[string]any{
		{"level": "error", "message": "reload refused", "event": "reload_refused", "error": "a \"b\"\n\tc\\d\\x01é", "generation": 7.0},
		{"level": "warn", "message": "exchange failed", "event": "exchange_failed", "fault": "dns_timeout", "status": 504.0,
			"duration_usec": 1e6, "fix": "Wait."},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %q", len(lines), len(want), lines)
	}
	for i, line := range lines {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for k, v := range want[i] {
			if got[k] != v {
				t.Errorf("%s = %v, want %v, in %s", k, got[k], v, line)
			}
		}
		if at, err := time.Parse(time.RFC3339, got["time"].(string)); err != nil || time.Since(at) > time.Minute {
			t.Errorf("time = %v", got["time"])
		}
	}
}

func TestLinesOfAJournalStreamCarryTheirPriority(t *testing.T) {
	var out output
	s := &lineSink{w: &out, format: appendText, marks: true}
	s.write([]record{
		{level: hclog.Error, message: "reload refused", fields: []field{text("error", "a:1: x\n\thint: y")}},
		{level: hclog.Info, message: "started"},
		{level: hclog.Info, kind: exchangeFinished},
	})
	got := out.lines()
	want := []string{"<3>reload refused", "<3>\terror:", "<3>\ta:1: x", "<3>\t\thint: y", "<6>started"}
	for i, line := range want {
		if got[i] != line {
			t.Errorf("line %d = %q, want %q", i, got[i], line)
		}
	}
	if last := got[len(got)-1]; !strings.HasPrefix(last, "<7>exchange finished ") {
		t.Errorf("access line = %q, want the lowest priority", last)
	}
}

func TestLevelDecidesWhatIsTaken(t *testing.T) {
	lines := written(t, Options{Format: "text", Level: "warn"}, func(l *Log) {
		l.Logger().Info("no")
		l.Exchange(&ExchangeRecord{Status: 200})
		l.Exchange(&ExchangeRecord{Status: 400, Fault: "bad_request", Blame: "caller"})
		l.Exchange(&ExchangeRecord{Status: 502, Fault: "tls_alert", Blame: "upstream"})
		if l.Logger().IsInfo() {
			t.Error("IsInfo() at level warn")
		}
		if err := l.Reconfigure(Options{Format: "text", Level: "trace"}); err != nil {
			t.Fatal(err)
		}
		l.Logger().Trace("yes")
		if !l.Logger().IsTrace() {
			t.Error("not IsTrace() at level trace")
		}
	})
	if len(lines) != 2 || !strings.Contains(lines[0], "tls_alert") || !strings.Contains(lines[1], "yes") {
		t.Errorf("got %q", lines)
	}
}

func TestReloadChangesTheFormat(t *testing.T) {
	lines := written(t, Options{Format: "text"}, func(l *Log) {
		l.Logger().Info("one")
		l.Flush(10 * time.Second)
		if err := l.Reconfigure(Options{Format: "json"}); err != nil {
			t.Fatal(err)
		}
		l.Logger().Info("two")
	})
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " one") || !strings.HasPrefix(lines[1], "{") {
		t.Errorf("got %q", lines)
	}
}

func TestOptionsThatCannotBeHonouredAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"level", Options{Level: "loud"}, `log level "loud" is none of`},
		{"format", Options{Format: "xml"}, `log format "xml" is none of`},
		{"journal", Options{Format: "journal", journalSocket: "/nonexistent/socket"}, "log to the journal: dial"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New() = %v, want %q", err, tt.want)
			}
			lines := written(t, Options{Format: "text"}, func(l *Log) {
				if err := l.Reconfigure(tt.o); tt.name != "journal" && err == nil {
					t.Error("Reconfigure() accepted it")
				}
				l.Logger().Info("as before")
			})
			if tt.name != "journal" && !strings.HasSuffix(lines[0], "as before") {
				t.Errorf("after a refused Reconfigure: %q", lines)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy Policy
		status int
		fault  bool
		took   time.Duration
		want   bool
	}{
		{"errors: an answer", Policy{}, 200, false, time.Hour, false},
		{"errors: the upstream's 404", Policy{}, 404, false, 0, false},
		{"errors: the upstream's 503", Policy{}, 503, false, 0, true},
		{"errors: a fault", Policy{}, 400, true, 0, true},
		{"errors: slow", Policy{Slow: time.Second}, 200, false, time.Second, true},
		{"errors: fast", Policy{Slow: time.Second}, 200, false, time.Second - 1, false},
		{"all: an answer", Policy{Access: AccessAll}, 200, false, 0, true},
		{"off: a fault", Policy{Access: AccessOff, Slow: 1}, 502, true, time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.policy.Wants(tt.status, tt.fault, tt.took); got != tt.want {
				t.Errorf("Wants() = %v, want %v", got, tt.want)
			}
			r := ExchangeRecord{Policy: &tt.policy, Status: tt.status, Duration: tt.took}
			if tt.fault {
				r.Fault = "x"
			}
			lines := written(t, Options{Format: "text"}, func(l *Log) { l.Exchange(&r) })
			if got := lines[0] != ""; got != tt.want {
				t.Errorf("wrote %q", lines)
			}
		})
	}
	for _, s := range []string{"", "errors", "all", "off"} {
		if _, err := ParseAccess(s); err != nil {
			t.Error(err)
		}
	}
	if _, err := ParseAccess("some"); err == nil {
		t.Error(`ParseAccess("some") succeeded`)
	}
}

func TestPathsAreWrittenOnRequestAndQueriesNever(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy *Policy
		want   string // "" for no path at all
	}{
		{"path = false", &Policy{Access: AccessAll}, ""},
		{"path = true", &Policy{Access: AccessAll, Path: true}, " path=/accounts/123 "},
		{"no policy", nil, " path=/accounts/123 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := written(t, Options{Format: "text"}, func(l *Log) {
				l.Exchange(&ExchangeRecord{Policy: tt.policy, Status: 200, Path: []byte("/accounts/123?token=secret")})
			})[0]
			if strings.Contains(line, "secret") || strings.Contains(line, "?") {
				t.Errorf("query written: %s", line)
			}
			if tt.want == "" && strings.Contains(line, "path=") || !strings.Contains(line, tt.want) {
				t.Errorf("got %s", line)
			}
		})
	}
}

func TestSlowExchangesAreMarked(t *testing.T) {
	lines := written(t, Options{Format: "text"}, func(l *Log) {
		p := &Policy{Slow: time.Second}
		l.Exchange(&ExchangeRecord{Policy: p, Status: 200, Duration: 2 * time.Second})
		l.Exchange(&ExchangeRecord{Policy: p, Status: 500, Duration: time.Millisecond})
	})
	if len(lines) != 2 || !strings.Contains(lines[0], "slow=yes") || strings.Contains(lines[1], "slow") {
		t.Errorf("got %q", lines)
	}
}

func TestRecordsDoNotAliasTheBuffersOfAnExchange(t *testing.T) {
	buffer := []byte("GET localhost /x id")
	r := record{exchange: ExchangeRecord{Method: buffer[:3], Host: buffer[4:13], Path: buffer[14:16], RequestID: buffer[17:]}}
	var b blocks
	b.keep(&r)
	copy(buffer, "................... ")
	if r.method != "GET" || r.host != "localhost" || r.path != "/x" || r.requestID != "id" {
		t.Errorf("kept %q, %q, %q, %q", r.method, r.host, r.path, r.requestID)
	}
	if x := &r.exchange; x.Method != nil || x.Host != nil || x.Path != nil || x.RequestID != nil {
		t.Errorf("views are left: %+v", x)
	}
}

func TestWhatOthersWroteIsEscapedAndCut(t *testing.T) {
	long := strings.Repeat("x", 5000)
	line := written(t, Options{Format: "text"}, func(l *Log) {
		l.Exchange(&ExchangeRecord{Status: 502, Fault: "response_malformed", Blame: "upstream", RequestID: []byte("a\nb"), Host: []byte(long),
			Method: []byte("G\x1bT"), Path: []byte("/\xff"), Caller: "\u202e", Err: errors.New("upstream said \"\r\n<3>forged\" " + long)})
	})
	if len(line) != 1 {
		t.Fatalf("%d lines, want 1: %q", len(line), line)
	}
	for _, want := range []string{`request_id=a\x0ab`, `method=G\x1bT`, `path=/\xff`, `caller=\u{202e}`, `\x0d\x0a<3>forged`} {
		if !strings.Contains(line[0], want) {
			t.Errorf("no %s in %s", want, line[0])
		}
	}
	if len(line[0]) > 2048 {
		t.Errorf("%d bytes", len(line[0]))
	}
}

// An exchange that was answered allocates nothing for its record, neither where it is carried nor in the writer: blocks hold
// what others wrote of a hundred of them. Flush, by which the test waits for the writer, has a timer and a channel.
func TestRecordsOfAnswersAllocateNothing(t *testing.T) {
	journal, path := journald(t)
	go func() {
		for in := make([]byte, 64<<10); ; {
			if _, err := journal.Read(in); err != nil {
				return
			}
		}
	}()
	failed := ExchangeRecord{Policy: &Policy{}, Status: 502, Fault: "tls_alert", Blame: "upstream", RequestID: []byte("r"), Err: io.EOF}
	for _, format := range []string{"text", "json", "journal"} {
		l, err := New(Options{Format: format, Stderr: io.Discard, journalSocket: path})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(time.Second)
		for range burstRecords {
			l.Exchange(&failed)
		}
		for name, r := range map[string]ExchangeRecord{
			"not wanted":          {Policy: &Policy{}, Status: 200},
			"the rest of a burst": failed,
			"an answer": {Policy: &Policy{Access: AccessAll, Path: true}, Status: 200, Listener: "http", Route: "default", Upstream: "ledger",
				Method: []byte("GET"), Host: []byte("localhost"), Path: []byte("/accounts"), RequestID: []byte("0123456789ab-0123456789ab"),
				Caller: "127.0.0.1:54321", Duration: 1234 * time.Microsecond},
		} {
			t.Run(format+", "+name, func(t *testing.T) {
				n := testing.AllocsPerRun(20, func() {
					for range batchSize {
						l.Exchange(&r)
					}
					l.Flush(10 * time.Second)
				})
				if n > 8 {
					t.Errorf("%v allocations for %d records, want no more than the 8 of Flush and of a block now and then", n, batchSize)
				}
			})
		}
	}
}

// With access = "all", there is a record with the id of each answer.
func TestABurstIsRecordedWholeWhereAllIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l, err := New(Options{Format: "text", Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 * burstRecords {
			l.Exchange(&ExchangeRecord{Policy: &Policy{Access: AccessAll}, Status: 502, Fault: "tls_alert", Blame: "upstream"})
			synctest.Wait()
		}
		if err := l.Close(time.Second); err != nil {
			t.Fatal(err)
		}
		if n := len(out.lines()); n != 10*burstRecords {
			t.Errorf("%d records, want %d", n, 10*burstRecords)
		}
	})
}

func TestABurstBecomesTenRecordsAndASum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l, err := New(Options{Format: "text", Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		fail := func(token, upstream string, n int) {
			for range n {
				l.Exchange(&ExchangeRecord{Status: 502, Fault: token, Upstream: upstream, Blame: "upstream", Fix: "Mend it."})
			}
		}
		fail("tls_alert", "ledger", 1000)
		fail("tls_alert", "payroll", 3)
		fail("connection_refused", "ledger", 10)
		synctest.Wait()
		if n := len(out.lines()); n != 23 {
			t.Errorf("%d records at once, want 10 + 3 + 10", n)
		}
		time.Sleep(burstWindow - time.Millisecond)
		synctest.Wait()
		if n := len(out.lines()); n != 23 {
			t.Errorf("%d records before the window is over, want 23", n)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		lines := out.lines()
		if len(lines) != 24 {
			t.Fatalf("%d records after the window, want one sum more", len(lines))
		}
		want := `WARN  fault repeated fault=tls_alert count=1000 recorded=10 window_seconds=10 blame=upstream upstream=ledger fix="Mend it."`
		if got := body(lines[23]); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		fail("tls_alert", "ledger", 1)
		fail("tls_alert", "payroll", 12)
		if err := l.Close(time.Second); err != nil {
			t.Fatal(err)
		}
		lines = out.lines()
		if len(lines) != 24+1+10+1 || !strings.Contains(lines[len(lines)-1], "count=12") {
			t.Errorf("after a new window and Close: %d records, the last %q", len(lines), lines[len(lines)-1])
		}
	})
}

// counted counts writes.
type counted struct {
	output
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.output.Write(p)
}

func TestAnsweredRequestsAreWrittenTogether(t *testing.T) {
	answered := &ExchangeRecord{Status: 200}
	for _, tt := range []struct {
		name    string
		do      func(*Log)
		records int
		late    bool // they are not there before they have lingered
	}{
		{"one waits for others", func(l *Log) { l.Exchange(answered) }, 1, true},
		{"so do a few", func(l *Log) {
			for range batchSize - 1 {
				l.Exchange(answered)
			}
		}, batchSize - 1, true},
		{"enough do not", func(l *Log) {
			for range batchSize {
				l.Exchange(answered)
				synctest.Wait() // the writer has seen it, and sleeps again
			}
		}, batchSize, false},
		{"a fault takes them with it", func(l *Log) {
			l.Exchange(answered)
			synctest.Wait()
			l.Exchange(&ExchangeRecord{Status: 502, Fault: "x"})
		}, 2, false},
		{"whatever else is told does, too", func(l *Log) {
			l.Exchange(answered)
			synctest.Wait()
			l.Logger().Info("started")
		}, 2, false},
		{"Flush waits for nothing more", func(l *Log) {
			l.Exchange(answered)
			synctest.Wait()
			if !l.Flush(linger / 2) {
				t.Error("not written within half the time")
			}
		}, 1, false},
		{"nor does Close", func(l *Log) {
			l.Exchange(answered)
			synctest.Wait()
			if err := l.Close(linger / 2); err != nil {
				t.Error(err)
			}
		}, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out counted
				l, err := New(Options{Format: "json", Stderr: &out})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close(time.Second)
				synctest.Wait() // the writer sleeps
				begun := time.Now()
				tt.do(l)
				synctest.Wait()
				if got := out.writes.Load() > 0; got == tt.late {
					t.Errorf("written after %v: %v", time.Since(begun), got)
				}
				time.Sleep(linger)
				synctest.Wait()
				if lines, writes := len(out.lines()), out.writes.Load(); lines != tt.records || writes != 1 {
					t.Errorf("%d records in %d writes, want %d in one", lines, writes, tt.records)
				}
			})
		})
	}
}

func TestAnIdleWriterSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l, err := New(Options{Format: "text", Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		l.Logger().Info("still there")
		if !l.Flush(time.Second) {
			t.Error("not written")
		}
		if err := l.Close(time.Second); err != nil {
			t.Error(err)
		}
		l.Logger().Info("too late") // must not panic or block
		if !l.Flush(time.Second) || l.Dropped() != 1 {
			t.Errorf("Dropped() = %d after Close, want 1", l.Dropped())
		}
	})
}

// stuckPipe returns a pipe that is full.
func stuckPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	full := error(nil)
	if err := raw.Write(func(fd uintptr) bool {
		for line := []byte("\n"); full == nil; {
			_, full = syscall.Write(int(fd), line)
		}
		return true
	}); err != nil || !errors.Is(full, syscall.EAGAIN) {
		t.Fatalf("filling a pipe: %v, %v", err, full)
	}
	return r, w
}

func TestAStuckPipeHoldsNobodyUp(t *testing.T) {
	r, w := stuckPipe(t)
	l, err := New(Options{Format: "text", Stderr: w, Queue: 100})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 20_000 {
		l.Exchange(&ExchangeRecord{Policy: &Policy{Access: AccessAll}, Status: 200, RequestID: bytes.Repeat([]byte("x"), 100)})
	}
	l.Logger().Error("important")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("20,000 records took %v", d)
	}
	if l.Dropped() == 0 {
		t.Error("nothing dropped")
	}
	if l.Flush(10 * time.Millisecond) {
		t.Error("Flush() says that a stuck pipe was written")
	}
	got := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		got <- string(b)
	}()
	if err := l.Close(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	w.Close()
	text := <-got
	if !strings.Contains(text, "ERROR important") {
		t.Error("the error did not outlive the access lines")
	}
	if !strings.Contains(text, "WARN  log records dropped count=") {
		t.Error("nothing says that records were dropped")
	}
}

func TestCloseGivesUpOnAStuckPipe(t *testing.T) {
	_, w := stuckPipe(t)
	l, err := New(Options{Format: "text", Stderr: w})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		l.Logger().Info("x")
	}
	if err := l.Close(20 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "records not written within 20ms") {
		t.Errorf("Close() = %v", err)
	}
	<-l.done // a pipe can be interrupted
}

func TestDiscardTakesEverything(t *testing.T) {
	l := Discard()
	l.Logger().Error("x")
	l.Exchange(&ExchangeRecord{Status: 502, Fault: "x"})
	if err := errors.Join(l.Reconfigure(Options{Level: "debug"}), l.Close(0)); err != nil || !l.Flush(0) || l.Dropped() != 0 {
		t.Error("Discard() is more than nothing")
	}
}

func TestUseFromManyGoroutines(t *testing.T) {
	lines := written(t, Options{Format: "json", Queue: 100_000}, func(l *Log) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 500 {
					l.Logger().Info("one", "i", i)
					l.Exchange(&ExchangeRecord{Status: 200, RequestID: []byte("r")})
					l.Exchange(&ExchangeRecord{Status: 502, Fault: "f", Blame: "upstream"})
				}
			})
		}
		wg.Go(func() {
			for i := range 50 {
				_ = l.Reconfigure(Options{Format: []string{"json", "text"}[i%2], Level: []string{"info", "debug"}[i%2]})
			}
		})
		wg.Wait()
	})
	// 500 plain and 500 access records each, ten faults and their sum.
	if len(lines) != 4000+11 {
		t.Errorf("%d records, want 4011", len(lines))
	}
}

func BenchmarkExchangeNotWanted(b *testing.B) {
	p := &Policy{Slow: time.Second}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; p.Wants(200, false, time.Duration(i)) {
			b.Fatal("wanted")
		}
	}
}
