package systemd

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// manager is the receiving end of NOTIFY_SOCKET.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

// newManager listens and puts its address into the environment.
func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, c}
}

// messages returns the datagrams that have arrived. Sending is synchronous, so
// what was sent is here.
func (m *manager) messages() []string {
	m.t.Helper()
	var all []string
	for {
		p, ok := m.receive(20 * time.Millisecond)
		if !ok {
			return all
		}
		all = append(all, p.text)
	}
}

// packet is a datagram with the descriptors that came along.
type packet struct {
	text  string
	files []*os.File
}

func (p packet) close() {
	for _, f := range p.files {
		f.Close()
	}
}

// receive waits for one datagram. Its files are closed when the test ends.
func (m *manager) receive(wait time.Duration) (p packet, ok bool) {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		m.t.Fatal(err)
	}
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, flags, _, err := m.conn.ReadMsgUnix(buf, oob)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return packet{}, false
	}
	if err != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		m.t.Fatalf("receive: flags %#x, %v", flags, err)
	}
	p.text = strings.TrimSuffix(string(buf[:n]), "\n")
	controls, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		m.t.Fatal(err)
	}
	for _, c := range controls {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, fd := range fds {
			p.files = append(p.files, os.NewFile(uintptr(fd), "received"))
		}
	}
	m.t.Cleanup(p.close)
	return p, true
}

// next is receive for what has to come.
func (m *manager) next() packet {
	m.t.Helper()
	p, ok := m.receive(10 * time.Second)
	if !ok {
		m.t.Fatal("no message came")
	}
	return p
}

// withoutTime replaces the time stamp, which is checked elsewhere.
func withoutTime(message string) string {
	lines := strings.Split(message, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "MONOTONIC_USEC=") {
			lines[i] = "MONOTONIC_USEC=…"
		}
	}
	return strings.Join(lines, "\n")
}

func TestNotifySendsInAnOrderTheManagerUnderstands(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*Notify) error
		want []string
	}{
		{
			name: "start, reload, stop",
			do: func(n *Notify) error {
				return errors.Join(n.Status("loading"), n.Ready("serving"), n.Watchdog(), n.Reloading("reading"), n.Ready("generation 2"), n.Stopping("draining"))
			},
			want: []string{"STATUS=loading", "READY=1\nSTATUS=serving", "WATCHDOG=1", "RELOADING=1\nMONOTONIC_USEC=…\nSTATUS=reading", "READY=1\nSTATUS=generation 2", "STOPPING=1\nSTATUS=draining"},
		},
		{
			name: "nothing but status and time after stopping",
			do: func(n *Notify) error {
				return errors.Join(n.Ready(""), n.Stopping("draining"), n.Ready("again"), n.Reloading("again"), n.Watchdog(), n.Status("2 left"), n.ExtendTimeout(3*time.Second), n.Stopping("1 left"))
			},
			want: []string{"READY=1", "STOPPING=1\nSTATUS=draining", "STATUS=again", "STATUS=again", "STATUS=2 left", "EXTEND_TIMEOUT_USEC=3000000", "STATUS=1 left"},
		},
		{
			name: "a stop closes the reload that it interrupts",
			do: func(n *Notify) error {
				return errors.Join(n.Ready(""), n.Reloading(""), n.Stopping(""), n.Ready("reloaded"))
			},
			want: []string{"READY=1", "RELOADING=1\nMONOTONIC_USEC=…", "READY=1", "STOPPING=1", "STATUS=reloaded"},
		},
		{
			name: "no reload before the start is over",
			do:   func(n *Notify) error { return errors.Join(n.Reloading("early"), n.Ready("")) },
			want: []string{"STATUS=early", "READY=1"},
		},
		{
			name: "a status is one line",
			do:   func(n *Notify) error { return n.Status("bad\nWATCHDOG=trigger\x00\xff") },
			want: []string{"STATUS=bad WATCHDOG=trigger \uFFFD"},
		},
		{
			name: "an empty status sends nothing",
			do:   func(n *Notify) error { return n.Status("") },
		},
		{
			name: "an extension is never rounded to none",
			do:   func(n *Notify) error { return n.ExtendTimeout(time.Nanosecond) },
			want: []string{"EXTEND_TIMEOUT_USEC=1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t)
			n := NewNotify()
			if err := tt.do(n); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, message := range m.messages() {
				got = append(got, withoutTime(message))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("sent %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestReloadingCarriesTheMonotonicClockInMicroseconds(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	clock := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return ts.Nano() / 1000
	}
	if err := n.Ready(""); err != nil {
		t.Fatal(err)
	}
	before := clock()
	if err := n.Reloading(""); err != nil {
		t.Fatal(err)
	}
	after := clock()
	message := m.messages()[1]
	_, usec, _ := strings.Cut(message, "MONOTONIC_USEC=")
	got, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || got < before || got > after {
		t.Errorf("Reloading sent %q; want a MONOTONIC_USEC between %d and %d", message, before, after)
	}
}

func TestNotifyKeepsItsOrderUnderConcurrentCalls(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	if err := n.Ready("serving"); err != nil {
		t.Fatal(err)
	}
	var (
		wg  sync.WaitGroup
		got = make(chan []string)
	)
	go func() {
		var all []string
		for !slices.Contains(all, "STATUS=last") {
			all = append(all, m.messages()...)
		}
		got <- all
	}()
	for range 8 {
		wg.Go(func() {
			for range 20 {
				_ = errors.Join(n.Reloading(""), n.Status("x"), n.Watchdog(), n.Ready(""))
			}
		})
		wg.Go(func() { _ = n.Stopping("") })
	}
	wg.Wait()
	if err := n.Status("last"); err != nil {
		t.Fatal(err)
	}
	reloading, stopping := false, false
	for _, message := range <-got {
		first, _, _ := strings.Cut(message, "\n")
		switch {
		case first == "RELOADING=1":
			reloading = true
		case first == "READY=1":
			reloading = false
		case first == "STOPPING=1" && reloading:
			t.Fatal("STOPPING=1 was sent while a reload was open")
		}
		if stopping && !strings.HasPrefix(message, "STATUS=") {
			t.Fatalf("%q was sent after STOPPING=1", message)
		}
		stopping = stopping || first == "STOPPING=1"
	}
	if !stopping {
		t.Error("STOPPING=1 was never sent")
	}
}

func TestNotifyTakesItsSocketOutOfTheEnvironment(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	if v, there := os.LookupEnv("NOTIFY_SOCKET"); there {
		t.Errorf("NOTIFY_SOCKET is still %q", v)
	}
	if err := n.Ready(""); err != nil {
		t.Fatal(err)
	}
	if got := m.messages(); !n.Enabled() || len(got) != 1 {
		t.Errorf("Enabled() = %v and %q arrived; want true and READY=1", n.Enabled(), got)
	}
}

func TestNotifyWithoutManagerDoesNothing(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := NewNotify()
	if n.Enabled() {
		t.Error("Enabled() = true without NOTIFY_SOCKET")
	}
	if err := errors.Join(n.Ready("x"), n.Reloading("x"), n.Watchdog(), n.Stopping("x"), n.ExtendTimeout(1)); err != nil {
		t.Errorf("without a manager: %v; want no error", err)
	}
}

func TestNotifyTellsThatTheManagerIsGone(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	m.conn.Close()
	if err := n.Ready(""); err == nil || !strings.HasPrefix(err.Error(), "notify the service manager: ") {
		t.Errorf("Ready() = %v; want an error that says what we were doing", err)
	}
}

func TestStuckManagerHoldsNobodyUp(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a deadline of a real socket")
	}
	newManager(t) // never reads
	n := NewNotify()
	for range 100000 {
		begin := time.Now()
		err := n.Status("x")
		if took := time.Since(begin); took > sendTimeout+time.Second {
			t.Fatalf("Status took %v; want at most %v", took, sendTimeout)
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Status() = %v; want a deadline", err)
			}
			return
		}
	}
	t.Error("the queue of the socket never filled")
}

func FuzzStatusIsOneAssignment(f *testing.F) {
	for _, s := range []string{"", "serving", "a\nREADY=1", "\x00", "\xff\xfe", "\u2028", strings.Repeat("ä", maxStatusBytes)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line := statusLine(s)
		switch {
		case s == "" && line == "":
		case !strings.HasPrefix(line, "STATUS="):
			t.Errorf("statusLine(%q) = %q; want an assignment of STATUS", s, line)
		case strings.ContainsAny(line, "\n\x00"):
			t.Errorf("statusLine(%q) = %q begins another assignment", s, line)
		case !utf8.ValidString(line):
			t.Errorf("statusLine(%q) = %q is not UTF-8", s, line)
		case len(line) > len("STATUS=")+maxStatusBytes+len("…"):
			t.Errorf("statusLine of %d bytes has %d", len(s), len(line))
		}
	})
}
