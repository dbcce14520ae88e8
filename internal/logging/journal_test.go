package logging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// journald is a socket in journald's place.
func journald(t testing.TB) (*net.UnixConn, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "journal") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "socket")
	return listenAt(t, path), path
}

func listenAt(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// receive reads one record in journald's native protocol.
func receive(t *testing.T, c *net.UnixConn) map[string]string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	fields, err := parseNative(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func parseNative(b []byte) (map[string]string, error) {
	fields := make(map[string]string)
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return nil, fmt.Errorf("no newline after %q", line)
		}
		name, value, plain := strings.Cut(string(line), "=")
		b = rest
		if !plain {
			if len(b) < 8 {
				return nil, errors.New("no length")
			}
			n := binary.LittleEndian.Uint64(b)
			if uint64(len(b)) < 8+n+1 || b[8+n] != '\n' {
				return nil, errors.New("value shorter than its length")
			}
			value, b = string(b[8:8+n]), b[8+n+1:]
		}
		if name == "" || name[0] == '_' || len(name) > 64 || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return nil, fmt.Errorf("field name %q", name)
		}
		fields[name] = value
	}
	return fields, nil
}

func TestJournalGetsFields(t *testing.T) {
	c, path := journald(t)
	l, err := New(Options{Format: "journal", Level: "debug", journalSocket: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(time.Second)

	for _, tt := range []struct {
		name string
		do   func()
		want map[string]string
	}{
		{"a fault", func() {
			l.Exchange(&ExchangeRecord{Listener: "http", Route: "/bank", Upstream: "ledger", RequestID: []byte("r1"), Status: 502, Generation: 9,
				Fault: "connection_refused", Blame: "upstream", Summary: "Nobody listens.", Fix: "Start it.", Err: errors.New("a\nb"),
				Duration: 1234 * time.Microsecond, Host: []byte("x"), Method: []byte("POST"), Caller: "uid 7", BytesIn: 1, BytesOut: 2})
		}, map[string]string{"MTLS_LISTENER": "http", "MTLS_ROUTE": "/bank", "MTLS_UPSTREAM": "ledger", "MTLS_REQUEST_ID": "r1",
			"MTLS_FAULT": "connection_refused", "MTLS_STATUS": "502", "MTLS_DURATION_USEC": "1234", "MTLS_GENERATION": "9",
			"MESSAGE_ID": ExchangeFailed.MessageID(), "PRIORITY": "4", "SYSLOG_IDENTIFIER": "mtls-proxy", "MTLS_ERROR": `a\x0ab`,
			"MTLS_SUMMARY": "Nobody listens.", "MTLS_FIX": "Start it.", "MTLS_BLAME": "upstream", "MTLS_METHOD": "POST",
			"MTLS_HOST": "x", "MTLS_CALLER": "uid 7", "MTLS_BYTES_IN": "1", "MTLS_BYTES_OUT": "2", "MTLS_EVENT": "exchange_failed",
			"MESSAGE": `exchange failed: Nobody listens. fault=connection_refused blame=upstream method=POST host=x status=502 ` +
				`duration=1.234ms listener=http route=/bank upstream=ledger caller="uid 7" request_id=r1 generation=9 bytes_in=1 bytes_out=2 ` +
				`error=a\x0ab fix="Start it."`}},
		{"a fault of the caller", func() { l.Exchange(&ExchangeRecord{Status: 400, Fault: "bad_request", Blame: "caller"}) },
			map[string]string{"PRIORITY": "6"}},
		{"a fault of ours", func() { l.Exchange(&ExchangeRecord{Status: 500, Fault: "internal_error", Blame: "proxy"}) },
			map[string]string{"PRIORITY": "3"}},
		{"a limit of ours", func() { l.Exchange(&ExchangeRecord{Status: 503, Fault: "concurrency_limit", Blame: "proxy"}) },
			map[string]string{"PRIORITY": "4"}},
		{"an answer", func() { l.Exchange(&ExchangeRecord{Status: 200}) },
			map[string]string{"PRIORITY": "7", "MESSAGE_ID": ExchangeFinished.MessageID()}},
		{"an ordinary record", func() {
			l.Logger().Info("generation published", "event", Published, "generation", 4, "odd-key.é", "x", strings.Repeat("k", 100), 1)
		}, map[string]string{"PRIORITY": "6", "MESSAGE_ID": Published.MessageID(), "MTLS_EVENT": "published", "MTLS_GENERATION": "4",
			"MTLS_ODD_KEY___": "x"}},
		{"lines", func() { l.Logger().Error("reload refused", "err", "a:1:1: x\n\thint: y") },
			map[string]string{"PRIORITY": "3", "MTLS_ERROR": "a:1:1: x\n\thint: y", "MESSAGE": "reload refused\n\terror:\n\ta:1:1: x\n\t\thint: y"}},
		{"debug", func() { l.Logger().Debug("x") }, map[string]string{"PRIORITY": "7", "MESSAGE_ID": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.do()
			got := receive(t, c)
			for k, want := range tt.want {
				if got[k] != want {
					t.Errorf("%s = %q, want %q", k, got[k], want)
				}
			}
		})
	}
}

func TestFieldsAreCut(t *testing.T) {
	c, path := journald(t)
	l, err := New(Options{Format: "journal", journalSocket: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(time.Second)
	args := []any{"err", strings.Repeat("é", 10_000)}
	for i := range 100 {
		args = append(args, fmt.Sprint("more", i), strings.Repeat("y", 10_000))
	}
	l.Logger().Error(strings.Repeat("m", 10_000), args...)
	got := receive(t, c)
	for k, v := range got {
		if len(v) > maxFieldBytes {
			t.Errorf("%s has %d bytes", k, len(v))
		}
	}
	if !strings.HasSuffix(got["MTLS_ERROR"], "é"+cutMark) {
		t.Error("nothing shows that the value was cut")
	}
}

// One call sends many records, and the kernel takes a part of them when journald is behind.
func TestRecordsThatAreSentTogetherArriveInOrder(t *testing.T) {
	c, path := journald(t)
	l, err := New(Options{Format: "journal", journalSocket: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(time.Second)
	const records = 5*batchSize + 1
	for i := range records {
		l.Exchange(&ExchangeRecord{Status: 200, Generation: uint64(i), Host: bytes.Repeat([]byte("h"), i%maxWrittenBytes)})
	}
	for i := range records {
		got := receive(t, c)
		if got["MTLS_GENERATION"] != strconv.Itoa(i) || len(got["MTLS_HOST"]) != i%maxWrittenBytes || got["MESSAGE_ID"] != ExchangeFinished.MessageID() {
			t.Fatalf("record %d is %v", i, got)
		}
	}
	if l.Dropped() > 0 {
		t.Errorf("%d dropped", l.Dropped())
	}
}

func TestAStuckJournalHoldsNobodyUp(t *testing.T) {
	c, path := journald(t)
	l, err := New(Options{Format: "journal", journalSocket: path, Queue: 200})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 5000 { // nobody reads, as when journald is stopped
		l.Exchange(&ExchangeRecord{Policy: &Policy{Access: AccessAll}, Status: 200})
	}
	l.Logger().Error("important")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("5,000 records took %v", d)
	}
	if l.Dropped() == 0 {
		t.Error("nothing dropped")
	}
	// journald goes on: the error is there, and all losses are told of.
	important, told := false, 0
	for !important || told < int(l.Dropped()) {
		got := receive(t, c)
		important = important || got["MESSAGE"] == "important"
		if got["MESSAGE_ID"] == RecordsDropped.MessageID() {
			n, err := strconv.Atoi(got["MTLS_COUNT"])
			if err != nil {
				t.Fatal(err)
			}
			told += n
		}
	}
	if told != int(l.Dropped()) {
		t.Errorf("told of %d losses, want %d", told, l.Dropped())
	}
	if err := l.Close(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestCloseGivesUpOnAStuckJournal(t *testing.T) {
	_, path := journald(t)
	l, err := New(Options{Format: "journal", journalSocket: path})
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		l.Logger().Info("x")
	}
	start := time.Now()
	if err := l.Close(50 * time.Millisecond); err == nil {
		t.Error("Close() says that all was written")
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("Close(50ms) took %v", d)
	}
	<-l.done
}

func TestAJournalThatWasReplacedIsFoundAgain(t *testing.T) {
	c, path := journald(t)
	l, err := New(Options{Format: "journal", journalSocket: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(time.Second)
	l.Logger().Info("one")
	receive(t, c)
	c.Close()
	os.Remove(path)
	l.Logger().Info("lost")
	l.Flush(10 * time.Second)
	if l.Dropped() != 1 {
		t.Errorf("Dropped() = %d without a journal, want 1", l.Dropped())
	}
	c = listenAt(t, path)
	l.Logger().Info("two")
	if got := receive(t, c); got["MTLS_COUNT"] != "1" || got["MESSAGE_ID"] != RecordsDropped.MessageID() {
		t.Errorf("got %q, want the record of one loss", got["MESSAGE"])
	}
	if got := receive(t, c)["MESSAGE"]; got != "two" {
		t.Errorf("got %q, want two", got)
	}
}

func TestWithoutAJournalNothingSpins(t *testing.T) {
	var hurry atomic.Bool
	_, path := journald(t)
	s, err := newJournalSink(path, &hurry)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	s.close()
	q := newQueue(10)
	q.put(&record{message: "x"})
	batch, _ := q.take(make([]record, 0, batchSize), true)
	q.written(batch, s.write(batch))
	if batch, _ = q.take(batch[:0], true); len(batch) != 0 {
		t.Errorf("a loss alone makes %d records", len(batch))
	}
	if q.lost.Load() != 1 || q.dropped != 1 {
		t.Errorf("lost %d, to be told %d; want 1, 1", q.lost.Load(), q.dropped)
	}
}

// FuzzNative: whatever facts a record has, journald can read it, and every value is within its bound.
func FuzzNative(f *testing.F) {
	f.Add("err", "value", "message")
	f.Add("", "a\nb\x00", "\n")
	f.Add("_x y=é", "\xff\xfe", "MESSAGE=forged\nPRIORITY=0")
	l := &Log{queue: newQueue(10)} // nobody writes: what comes of a call stays there
	f.Fuzz(func(t *testing.T, key, value, message string) {
		(&adapter{l}).Accept("", 3, message, key, value)
		batch, _ := l.queue.take(make([]record, 0, 1), true)
		datagram := appendDatagram(nil, &batch[0])
		fields, err := parseNative(datagram)
		if err != nil {
			t.Fatalf("%v in %q", err, datagram)
		}
		if fields["PRIORITY"] != "6" {
			t.Errorf("PRIORITY = %q", fields["PRIORITY"])
		}
		for k, v := range fields {
			if len(v) > maxFieldBytes {
				t.Errorf("%s has %d bytes", k, len(v))
			}
		}
	})
}

func TestCatalogHasEveryEvent(t *testing.T) {
	const file = "../../packaging/journal/mtls-proxy.catalog"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	entries := strings.Split(string(b), "\n-- ")[1:]
	var ids []string
	for _, entry := range entries {
		id, rest, _ := strings.Cut(entry, "\n")
		head, text, _ := strings.Cut(rest, "\n\n")
		if slices.Contains(ids, id) {
			t.Errorf("%s twice", id)
		}
		ids = append(ids, id)
		if !strings.HasPrefix(head, "Subject: ") || !strings.Contains(head, "\nDefined-By: mtls-proxy") {
			t.Errorf("%s: head %q", id, head)
		}
		if len(strings.TrimSpace(text)) < 40 {
			t.Errorf("%s: explanation %q", id, text)
		}
	}
	for e := NoEvent + 1; e < events; e++ {
		if id := e.MessageID(); len(id) != 32 || strings.Trim(id, hexDigits) != "" || e.String() == "" {
			t.Errorf("event %d: name %q, id %q", e, e, id)
		}
		i := slices.Index(ids, e.MessageID())
		if i < 0 {
			t.Errorf("%s has no entry for %s, %s", file, e, e.MessageID())
			continue
		}
		ids = slices.Delete(ids, i, i+1)
	}
	if len(ids) > 0 {
		t.Errorf("%s has entries for no event: %q", file, ids)
	}
}
