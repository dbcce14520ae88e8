package systemd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestMain plays the service when it was started with sockets.
func TestMain(m *testing.M) {
	if os.Getenv("SYSTEMD_TEST_CHILD") != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// childReport is what the process that was given sockets made of them.
type childReport struct {
	Addresses   map[string][]string
	Adopted     map[string]int // connections by listener
	Taken       int
	Problems    []string
	Environment []string // what is left of LISTEN_*
	Again       int      // sockets that a second call found
}

// child takes the sockets, answers one connection on each and one request on
// each adopted connection, and says what it saw.
func child() {
	notify := NewNotify()
	in := Inherit()
	report := childReport{Addresses: make(map[string][]string), Adopted: make(map[string]int)}
	problem := func(err error) {
		if err != nil {
			report.Problems = append(report.Problems, err.Error())
		}
	}
	for name, lns := range in.Listeners {
		for _, ln := range lns {
			report.Addresses[name] = append(report.Addresses[name], ln.Addr().String())
			c, err := ln.Accept()
			if err != nil {
				problem(err)
				continue
			}
			fmt.Fprint(c, name)
			c.Close()
			ln.Close()
		}
	}
	for _, p := range in.Problems {
		problem(p)
	}
	taken, err := notify.Adopt(in, func(listener string, c net.Conn) bool {
		if listener == "left" {
			return false
		}
		report.Adopted[listener]++
		line, err := bufio.NewReader(c).ReadString('\n')
		problem(err)
		fmt.Fprint(c, listener, " heard ", line)
		c.Close()
		return true
	})
	problem(err)
	report.Taken = taken
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "LISTEN_") {
			report.Environment = append(report.Environment, v)
		}
	}
	again := Inherit()
	report.Again = len(again.Listeners) + len(again.Connections)
	_ = json.NewEncoder(os.Stdout).Encode(report)
}

// passed is a descriptor that a child is given.
type passed struct {
	name string
	file *os.File
}

// startChild passes descriptors as the service manager would, or with other
// variables in its environment. The report is to be had once the child is done.
func startChild(t *testing.T, descriptors []passed, env ...string) (report func() childReport) {
	t.Helper()
	// A shell knows its own number, which the program that replaces it keeps.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	var names []string
	for _, p := range descriptors {
		names = append(names, p.name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.file)
	}
	cmd.Env = append(os.Environ(), "SYSTEMD_TEST_CHILD=1",
		"LISTEN_FDS="+strconv.Itoa(len(descriptors)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() childReport {
		t.Helper()
		var got childReport
		if err := json.NewDecoder(out).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return got
	}
}

// filer is what every socket of package net can do.
type filer interface{ File() (*os.File, error) }

func fileOf(t *testing.T, s filer) *os.File {
	t.Helper()
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func listenTCP(t *testing.T, address string) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func TestSocketsAreDispatchedByWhatTheyAre(t *testing.T) {
	dir := t.TempDir()
	one, two := listenTCP(t, "127.0.0.1:0"), listenTCP(t, "127.0.0.1:0")
	path := filepath.Join(dir, "api.sock")
	unixLn, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unixLn.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	connection, err := net.Dial("tcp", one.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	accepted, err := one.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	plain, err := os.Create(filepath.Join(dir, "plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()

	report := startChild(t, []passed{
		{"http", fileOf(t, one)},
		{"http", fileOf(t, two)},
		{"api", fileOf(t, unixLn)},
		{"dns", fileOf(t, udp)},
		{"accepted", fileOf(t, accepted.(*net.TCPConn))},
		{"log", plain},
		{"twice", fileOf(t, one)},
	})
	type answer struct {
		net.Conn
		name string
	}
	var answers []answer // all are dialled first: the child answers in an order of its own
	for addr, name := range map[net.Addr]string{one.Addr(): "http", two.Addr(): "http", unixLn.Addr(): "api"} {
		c, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		answers = append(answers, answer{c, name})
	}
	for _, a := range answers {
		if got, err := io.ReadAll(a); err != nil || string(got) != a.name {
			t.Errorf("%s answered %q, %v; want %q", a.RemoteAddr(), got, err, a.name)
		}
	}
	got := report()
	for name, want := range map[string][]string{"http": {one.Addr().String(), two.Addr().String()}, "api": {path}} {
		if !slices.Equal(got.Addresses[name], want) {
			t.Errorf("sockets named %q = %q; want %q", name, got.Addresses[name], want)
		}
	}
	if len(got.Addresses) != 2 {
		t.Errorf("sockets = %q; want only http and api", got.Addresses)
	}
	wantProblems := []string{
		`socket "accepted" of the service manager: it is a connection, not a listening socket; use Accept=no`,
		`socket "dns" of the service manager: it carries no streams; use ListenStream=`,
		`socket "log" of the service manager: it is no socket`,
		`socket "twice" of the service manager: the same socket was passed before as "http"`,
	}
	if !slices.Equal(got.Problems, wantProblems) {
		t.Errorf("problems = %q\nwant %q", got.Problems, wantProblems)
	}
	if len(got.Environment) > 0 || got.Again > 0 {
		t.Errorf("after Inherit() %q is in the environment and a second call finds %d; want nothing", got.Environment, got.Again)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the child closed its listener and the path is gone: %v", err)
	}
}

func TestNoSocketsWithoutManager(t *testing.T) {
	t.Setenv("LISTEN_FDS", "")
	if in := Inherit(); len(in.Listeners)+len(in.Connections)+len(in.Problems) > 0 {
		t.Errorf("Inherit() = %+v; want nothing", in)
	}
}

func TestSocketsOfAnotherProcessAreNotTouched(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	in := Inherit()
	if len(in.Listeners)+len(in.Connections) > 0 || len(in.Problems) != 1 || !strings.Contains(in.Problems[0].Error(), "passed to process 1") {
		t.Errorf("Inherit() = %+v; want a problem that names process 1", in)
	}
}

func FuzzListenFDs(f *testing.F) {
	f.Add("42", "1", "http", 42)
	f.Add("1", "1", "http", 42)
	f.Add("", "", "", 42)
	f.Add("42", "0", "", 42)
	f.Add("42", "-1", "", 42)
	f.Add("42", "1e9", "", 42)
	f.Add("42", "1000000000", "", 42)
	f.Add("42", "2", "http", 42)
	f.Add("42", "2", "http:", 42)
	f.Add("42", "2", "", 42)
	f.Add(" 42", "1", "", 42)
	f.Fuzz(func(t *testing.T, pid, fds, fdNames string, self int) {
		names, err := announced(pid, fds, fdNames, self)
		n, nErr := strconv.Atoi(fds)
		p, pErr := strconv.Atoi(pid)
		none := fds == "" || fds == "0"
		ours := none || nErr == nil && n >= 0 && n <= maxPassed && pErr == nil && p == self &&
			(fdNames == "" || strings.Count(fdNames, ":") == n-1)
		if (err == nil) != ours {
			t.Errorf("announced(%q, %q, %q, %d) = %v; want an error unless they are ours", pid, fds, fdNames, self, err)
		}
		if err == nil && !none && len(names) != n || err != nil && names != nil || slices.Contains(names, "") {
			t.Errorf("announced(%q, %q, %q, %d) = %q, %v; want a name for each", pid, fds, fdNames, self, names, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("announced(%q, %q, %q, %d) = %q has more than one line", pid, fds, fdNames, self, err)
		}
	})
}

// What the environment announces without its having been passed is not touched: it may be the runtime's own.
func TestDescriptorsThatWereNotPassedAreNotTouched(t *testing.T) {
	ln := listenTCP(t, "127.0.0.1:0")
	for _, tt := range []struct{ fds, names, want string }{
		{"5", "http:a:b:c:d", "LISTEN_FDS announces 5 of them, and number 2 was not passed; none is used"},
		{"1000000000", "http", `LISTEN_FDS is "1000000000", which is no number of them`},
		{"2", "http", "LISTEN_FDS announces 2 of them and LISTEN_FDNAMES names 1; none is used"},
	} {
		got := startChild(t, []passed{{"http", fileOf(t, ln)}}, "LISTEN_FDS="+tt.fds, "LISTEN_FDNAMES="+tt.names)()
		if want := []string{"sockets of the service manager: " + tt.want}; !slices.Equal(got.Problems, want) || len(got.Addresses) > 0 {
			t.Errorf("LISTEN_FDS=%s: problems %q, sockets %q; want %q and none", tt.fds, got.Problems, got.Addresses, want)
		}
	}
}
