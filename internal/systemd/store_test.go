package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connect returns both ends of a TCP connection.
func connect(t *testing.T) (caller, ours *net.TCPConn) {
	t.Helper()
	ln := listenTCP(t, "127.0.0.1:0")
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

// socketPair returns both ends of a Unix stream.
func socketPair(t *testing.T) (caller, ours *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// stored has n connections kept for listener and returns the manager's duplicates.
func stored(t *testing.T, m *manager, n *Notify, listener string, conns ...syscall.Conn) []*os.File {
	t.Helper()
	if got, err := n.Store(listener, conns); got != len(conns) || err != nil {
		t.Fatalf("Store(%q) = %d, %v; want %d", listener, got, err, len(conns))
	}
	p := m.next()
	if want := "FDSTORE=1\nFDNAME=conn." + listener; p.text != want || len(p.files) != len(conns) {
		t.Fatalf("sent %q with %d descriptors; want %q with %d", p.text, len(p.files), want, len(conns))
	}
	return p.files
}

// inodeOf identifies a socket.
func inodeOf(t *testing.T, c syscall.Conn) (id inode, flags int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.Fstat(int(fd), &st)
		if failed == nil {
			flags, failed = unix.FcntlInt(fd, unix.F_GETFL, 0)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return inode{dev: st.Dev, ino: st.Ino}, flags
}

func TestStoreSendsEveryConnectionAndChangesNone(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	const count = 2*maxDescriptors + 40
	var conns []syscall.Conn
	want := make(map[inode]bool)
	for range count {
		caller, c := socketPair(t)
		caller.Close() // to spare descriptors; the manager does not look
		conns = append(conns, c)
		id, _ := inodeOf(t, c)
		want[id] = true
	}
	if got, err := n.Store("http", conns); got != count || err != nil {
		t.Fatalf("Store() = %d, %v; want %d", got, err, count)
	}
	for _, size := range []int{maxDescriptors, maxDescriptors, 40} {
		p := m.next()
		if p.text != "FDSTORE=1\nFDNAME=conn.http" || len(p.files) != size {
			t.Errorf("sent %q with %d descriptors; want %d as conn.http", p.text, len(p.files), size)
		}
		for _, f := range p.files {
			id, _ := inodeOf(t, f)
			if !want[id] {
				t.Fatal("a descriptor is none of the connections, or came twice")
			}
			delete(want, id)
		}
		p.close()
	}
	for _, c := range conns {
		if _, flags := inodeOf(t, c); flags&unix.O_NONBLOCK == 0 {
			t.Fatal("a connection was made to block")
		}
	}
	if more := m.messages(); len(want) > 0 || len(more) > 0 {
		t.Errorf("%d connections were not sent; %q was sent as well", len(want), more)
	}
}

func TestStoreSendsNoMoreThanTheManagerKeeps(t *testing.T) {
	m := newManager(t)
	t.Setenv("FDSTORE", "5")
	n := NewNotify()
	if v, there := os.LookupEnv("FDSTORE"); there || n.Room() != 5 {
		t.Errorf("FDSTORE is still %q, Room() = %d; want none, 5", v, n.Room())
	}
	var conns []syscall.Conn
	for range 4 {
		_, c := socketPair(t)
		conns = append(conns, c)
	}
	conns[1].(*net.UnixConn).Close()
	for i, want := range []int{3, 2, 0} { // a closed one takes no room
		if got, err := n.Store("http-"+strconv.Itoa(i), conns); got != want || err != nil {
			t.Errorf("Store() #%d = %d, %v; want %d", i, got, err, want)
		}
	}
	if got := n.Room(); got != 0 {
		t.Errorf("Room() = %d afterwards; want 0", got)
	}
	came := 0
	for {
		p, ok := m.receive(20 * time.Millisecond)
		if !ok {
			break
		}
		came += len(p.files)
	}
	if came != 5 {
		t.Errorf("%d descriptors came; want 5", came)
	}
}

func TestRoomIsWhatTheManagerSaysOrTheUnit(t *testing.T) {
	for _, tt := range []struct {
		fdstore, socket string
		want            int
	}{
		{"7", "/run/notify", 7},
		{"0", "/run/notify", 0},
		{"", "/run/notify", unitRoom}, // before 254
		{"many", "/run/notify", unitRoom},
		{"-1", "/run/notify", unitRoom},
		{"7", "", 0},
	} {
		t.Setenv("FDSTORE", tt.fdstore)
		t.Setenv("NOTIFY_SOCKET", tt.socket)
		if got := NewNotify().Room(); got != tt.want {
			t.Errorf("Room() = %d with FDSTORE=%q NOTIFY_SOCKET=%q; want %d", got, tt.fdstore, tt.socket, tt.want)
		}
	}
}

func TestUnitKeepsConnectionsOverARestartAndNoLonger(t *testing.T) {
	unit, err := os.ReadFile("../../systemd/mtls-proxy.service")
	if err != nil {
		t.Fatal(err)
	}
	if line := fmt.Sprintf("\nFileDescriptorStoreMax=%d\n", unitRoom); !strings.Contains(string(unit), line) {
		t.Errorf("the unit has no line %q, which Room goes by", strings.TrimSpace(line))
	}
	// Kept after a stop, callers would wait for a process that never comes.
	if strings.Contains(string(unit), "\nFileDescriptorStorePreserve=") {
		t.Error("the unit keeps connections after a stop")
	}
}

func TestStoreRefusesNamesThatTheManagerWouldNotTake(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	_, c := socketPair(t)
	for _, name := range []string{"", "a:b", "a\nFDSTOREREMOVE=1", "ä", strings.Repeat("x", maxNameBytes)} {
		if got, err := n.Store(name, []syscall.Conn{c}); got != 0 || err == nil {
			t.Errorf("Store(%q) = %d, %v; want an error", name, got, err)
		}
	}
	if got := m.messages(); len(got) > 0 {
		t.Errorf("sent %q", got)
	}
	stored(t, m, n, strings.Repeat("x", 63), c) // the longest that the configuration allows
}

func TestStoreWithoutManagerKeepsNothing(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := NewNotify()
	_, c := socketPair(t)
	if got, err := n.Store("http", []syscall.Conn{c}); got != 0 || err != nil {
		t.Errorf("Store() = %d, %v; want 0", got, err)
	}
	if err := n.Barrier(t.Context()); err != nil {
		t.Errorf("Barrier() = %v", err)
	}
}

func TestStoreTellsThatTheManagerIsGone(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	m.conn.Close()
	_, c := socketPair(t)
	got, err := n.Store("http", []syscall.Conn{c})
	if want := `keep connections of listener "http": notify the service manager: `; got != 0 || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Store() = %d, %v; want %s…", got, err, want)
	}
	if err := n.Barrier(t.Context()); err == nil {
		t.Error("Barrier() = nil; want an error")
	}
}

func TestStoreWaitsForAManagerThatIsBusy(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: n.addr}
	for err == nil {
		err = unix.Sendto(fd, []byte("X=1"), 0, to)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	_, c := socketPair(t)
	done := make(chan error)
	go func() {
		_, err := n.Store("http", []syscall.Conn{c})
		done <- err
	}()
	for m.next().text == "X=1" {
	}
	if err := <-done; err != nil {
		t.Errorf("Store() = %v once the manager read on; want no error", err)
	}
}

func TestBarrierEndsWhenTheManagerHasWorkedItOff(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	done := make(chan error, 1)
	go func() { done <- n.Barrier(t.Context()) }()
	p := m.next()
	if p.text != "BARRIER=1" || len(p.files) != 1 {
		t.Fatalf("sent %q with %d descriptors; want BARRIER=1 with one", p.text, len(p.files))
	}
	select {
	case err := <-done:
		t.Fatalf("Barrier() = %v before the manager came to it", err)
	default:
	}
	p.close()
	if err := <-done; err != nil {
		t.Errorf("Barrier() = %v", err)
	}
}

func TestBarrierEndsWithItsContext(t *testing.T) {
	newManager(t) // never reads
	n := NewNotify()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Barrier() = %v; want %v", err, context.Canceled)
	}
}

func TestConnectionsThatWereStoredAreAdopted(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	t.Setenv("NOTIFY_SOCKET", n.addr) // for the child

	// Four that live: two idle, one with a request already, and one whose caller
	// said that it will say no more.
	idle, a := connect(t)
	asking, b := connect(t)
	unixCaller, c := socketPair(t)
	finished, d := connect(t)
	fmt.Fprintln(asking, "early")
	fmt.Fprintln(finished, "last")
	if err := finished.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// Four that died meanwhile: hung up, reset, the same for Unix.
	hungUp, e := connect(t)
	reset, f := connect(t)
	unixGone, g := socketPair(t)
	unixReset, h := socketPair(t)
	// One whose listener has left, and what we never store.
	left, i := connect(t)
	stranger, j := connect(t)
	nameless, k := connect(t)

	var descriptors []passed
	pass := func(name string, files []*os.File) {
		for _, f := range files {
			descriptors = append(descriptors, passed{name, f})
		}
	}
	pass("conn.http", stored(t, m, n, "http", a, b, d, e, f))
	pass("conn.api", stored(t, m, n, "api", c, g, h))
	pass("conn.left", stored(t, m, n, "left", i))
	pass("stored", []*os.File{fileOf(t, j)})
	pass("conn.", []*os.File{fileOf(t, k)})
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	pass("conn.udp", []*os.File{fileOf(t, udp)})
	for _, domain := range []int{unix.AF_INET, unix.AF_UNIX} {
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "unconnected")
		defer f.Close()
		pass("conn.unconnected", []*os.File{f})
	}
	// A listening socket is one under whatever name.
	ln := listenTCP(t, "127.0.0.1:0")
	pass("conn.listens", []*os.File{fileOf(t, ln)})

	// The old process goes, and some callers.
	for _, c := range []net.Conn{a, b, c, d, e, f, g, h, i, j, k} {
		c.Close()
	}
	if err := reset.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{hungUp, reset, unixGone, unixReset} {
		c.Close()
	}

	report := startChild(t, descriptors)
	for _, p := range descriptors {
		p.file.Close()
	}
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	fmt.Fprintln(idle, "hello")
	fmt.Fprintln(unixCaller, "hello")
	for _, tt := range []struct {
		what   string
		caller net.Conn
		want   string
	}{
		{"an idle caller", idle, "http heard hello\n"},
		{"a caller that asked meanwhile", asking, "http heard early\n"},
		{"a caller on a Unix socket", unixCaller, "api heard hello\n"},
		{"a caller that finished its last request", finished, "http heard last\n"},
		{"a caller of a listener that left", left, ""},
		{"a connection under a strange name", stranger, ""},
		{"a connection without a listener", nameless, ""},
		{"who dials", dialled, "conn.listens"},
	} {
		if got, err := io.ReadAll(tt.caller); string(got) != tt.want || err != nil {
			t.Errorf("%s was answered %q, %v; want %q", tt.what, got, err, tt.want)
		}
	}
	got := report()
	if got.Taken != 4 || got.Adopted["http"] != 3 || got.Adopted["api"] != 1 || len(got.Adopted) != 2 {
		t.Errorf("adopted %d: %v; want 3 of http and 1 of api", got.Taken, got.Adopted)
	}
	want := []string{
		`socket "conn." of the service manager: it is a connection, not a listening socket; use Accept=no`,
		`socket "conn.udp" of the service manager: it carries no streams; use ListenStream=`,
		`socket "conn.unconnected" of the service manager: it is not connected`,
		`socket "conn.unconnected" of the service manager: it is not connected`,
		`socket "stored" of the service manager: it is a connection, not a listening socket; use Accept=no`,
	}
	if !slices.Equal(got.Problems, want) {
		t.Errorf("problems = %q\nwant %q", got.Problems, want)
	}
	var removed []string
	for _, name := range []string{"conn.", "conn.api", "conn.http", "conn.left", "conn.udp", "conn.unconnected", "stored"} {
		removed = append(removed, "FDSTOREREMOVE=1\nFDNAME="+name)
	}
	if told := m.messages(); !slices.Equal(told, removed) {
		t.Errorf("the manager was told %q\nwant %q", told, removed)
	}
}

// inheritedFrom is what a process finds that was passed duplicates of conns.
func inheritedFrom(t *testing.T, name string, conns ...*net.TCPConn) *Inherited {
	t.Helper()
	files := make(map[string][]*os.File)
	for _, c := range conns {
		files[name] = append(files[name], fileOf(t, c))
	}
	in := &Inherited{Listeners: make(map[string][]net.Listener), Connections: make(map[string][]net.Conn)}
	in.dispatch(files)
	return in
}

func TestAdoptionTellsTheManagerBeforeAnythingIsRead(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	_, ours := connect(t)
	var told []string
	taken, err := n.Adopt(inheritedFrom(t, "conn.http", ours), func(_ string, c net.Conn) bool {
		told = m.messages()
		c.Close()
		return true
	})
	if want := []string{"FDSTOREREMOVE=1\nFDNAME=conn.http"}; taken != 1 || err != nil || !slices.Equal(told, want) {
		t.Errorf("Adopt() = %d, %v, having told %q; want 1 and %q", taken, err, told, want)
	}
}

// What cannot be removed from the store must not look alive to its caller when
// we close it: the manager's duplicate would keep it open.
func TestNothingIsAdoptedWhenTheManagerCannotBeTold(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	caller, ours := connect(t) // ours stays open, as the manager's duplicate would
	in := inheritedFrom(t, "conn.http", ours)
	m.conn.Close()
	taken, err := n.Adopt(in, func(string, net.Conn) bool {
		t.Error("a connection was offered")
		return false
	})
	if taken != 0 || err == nil || !strings.HasPrefix(err.Error(), "take over stored connections: ") {
		t.Errorf("Adopt() = %d, %v; want 0 and an error", taken, err)
	}
	if got, err := io.ReadAll(caller); len(got) > 0 || err != nil {
		t.Errorf("the caller read %q, %v; want the end", got, err)
	}
}

func TestNothingToAdoptSaysNothing(t *testing.T) {
	m := newManager(t)
	n := NewNotify()
	ln := listenTCP(t, "127.0.0.1:0")
	in := &Inherited{Listeners: make(map[string][]net.Listener)}
	in.dispatch(map[string][]*os.File{"http": {fileOf(t, ln)}})
	defer in.Listeners["http"][0].Close()
	if taken, err := n.Adopt(in, nil); taken != 0 || err != nil {
		t.Errorf("Adopt() = %d, %v; want 0", taken, err)
	}
	if told := m.messages(); len(told) > 0 {
		t.Errorf("told the manager %q", told)
	}
}

func FuzzDescriptorNameIsOneAssignment(f *testing.F) {
	for _, s := range []string{"http", "a:b", "a\nb", "\x7f", "ä", strings.Repeat("x", maxNameBytes+1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if isDescriptorName(s) && (len(s) > maxNameBytes || bytes.ContainsAny([]byte(s), ":\n\x00")) {
			t.Errorf("isDescriptorName(%q) = true", s)
		}
	})
}
