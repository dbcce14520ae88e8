package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds every wait of a script. Only a script that fails takes this long.
const patience = 20 * time.Second

// stage is what one script has running beside it.
type stage struct {
	up *upstream // nil until the script asks for it

	mu    sync.Mutex
	procs map[string]*process
}

type process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	notify *notifySocket
}

type stageKey struct{}

func setup(env *testscript.Env) error {
	s := &stage{procs: make(map[string]*process)}
	env.Values[stageKey{}] = s
	env.Setenv("SOCK", filepath.Join(env.WorkDir, "admin.sock"))
	env.Defer(s.strike)
	return nil
}

// strike ends whatever the script left running, and waits for it.
func (s *stage) strike() {
	for _, p := range s.procs {
		p.cmd.Process.Kill()
		<-p.done
	}
	if s.up != nil {
		s.up.close()
	}
}

func onStage(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// commands are the verbs of the scripts beside testscript's own:
//
//	upstream                     a TLS server that demands a client certificate; writes tls/; sets UPSTREAM, SERIAL
//	renew [DAYS]                 a new client certificate in place of the one in tls/, valid for so long; sets SERIAL
//	reroot                       a second CA in tls/ca.crt
//	held                         waits until the upstream holds a request for /hold
//	release                      lets the upstream answer what it holds
//	freeport NAME...             sets each to a loopback address that nobody listens on
//	occupy NAME                  sets it to a loopback address that somebody listens on
//	deaf PATH                    a Unix socket that takes connections and never answers
//	capture NAME                 sets it to what the last command printed
//	expand FILE...               replaces $NAME in the files
//	start NAME [-socket N=ADDR]... [-env K=V]... [-journal] [-broken] -- ARGS...
//	                             runs mtls-proxy ARGS until it is READY=1 (-broken: does not wait);
//	                             NAME.err, NAME.out and NAME.notify hold what it says; with -journal
//	                             it takes NAME.err for the journal's
//	signal NAME SIGNAL           sends a signal
//	ended NAME CODE              waits for its end and compares the exit code
//	exits CODE PROGRAM ARGS...   runs a program and compares the exit code
//	waitfor FILE REGEXP          waits until the file has a match
//	[!] request [-X METHOD] [-H 'Name: value']... [-d BODY] [-u USER:PASSWORD] [-unix SOCKET] [-status CODE] URL
//	                             the answer becomes stdout; with ! there must be none
//	[!] until OPTIONS URL        request, repeated until that is so
//	background NAME OPTIONS URL  request beside the script; NAME.answer gets the answer
func commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"upstream":   cmdUpstream,
		"renew":      cmdRenew,
		"reroot":     cmdReroot,
		"held":       cmdHeld,
		"release":    cmdRelease,
		"freeport":   cmdFreePort,
		"occupy":     cmdOccupy,
		"deaf":       cmdDeaf,
		"capture":    cmdCapture,
		"expand":     cmdExpand,
		"start":      cmdStart,
		"signal":     cmdSignal,
		"ended":      cmdEnded,
		"exits":      cmdExits,
		"waitfor":    cmdWaitFor,
		"request":    cmdRequest,
		"until":      cmdUntil,
		"background": cmdBackground,
	}
}

func plain(ts *testscript.TestScript, neg bool, name string, args []string, want int) {
	if neg {
		ts.Fatalf("%s cannot be negated", name)
	}
	if len(args) < want {
		ts.Fatalf("%s wants %d arguments", name, want)
	}
}

func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "freeport", args, 1)
	for _, name := range args {
		ts.Setenv(name, freeAddress(ts))
	}
}

// freeAddress finds a port below those that the kernel gives to whoever asks for any, so that no other script's connection
// gets it before it is used. No two scripts get the same.
func freeAddress(ts *testscript.TestScript) string {
	const first, count = 12000, 20000
	for range count {
		address := fmt.Sprintf("127.0.0.1:%d", first+lastPort.Add(1)%count)
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
			return address
		}
	}
	ts.Fatalf("no port is free")
	return ""
}

// lastPort counts the ports that were tried, from somewhere: another run of the tests may be going on.
var lastPort = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(uint32(os.Getpid()) * 100)
	return n
}()

// cmdOccupy listens on a port that the script then tries to use.
func cmdOccupy(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "occupy", args, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], ln.Addr().String())
	ts.Defer(func() { ln.Close() })
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "start", args, 1)
	name, args := args[0], args[1:]
	var (
		sockets, env    []string
		broken, journal bool
	)
	for len(args) > 0 && args[0] != "--" {
		switch {
		case args[0] == "-socket" && len(args) > 1:
			sockets = append(sockets, args[1])
			args = args[2:]
		case args[0] == "-env" && len(args) > 1:
			env = append(env, args[1])
			args = args[2:]
		case args[0] == "-broken":
			broken = true
			args = args[1:]
		case args[0] == "-journal":
			journal = true
			args = args[1:]
		default:
			ts.Fatalf("start: unknown option %q", args[0])
		}
	}
	if len(args) == 0 {
		ts.Fatalf("start: want -- and the arguments of mtls-proxy")
	}
	args = args[1:]
	program, err := exec.LookPath("mtls-proxy")
	ts.Check(err)
	activate, err := exec.LookPath("activate")
	ts.Check(err)

	m, err := newNotifySocket(ts.MkAbs(name + ".notify"))
	ts.Check(err)
	cmd := exec.Command(activate, append([]string{program, "mtls-proxy"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(append(scriptEnv(ts), env...), "NOTIFY_SOCKET="+m.path)
	if len(sockets) > 0 {
		var names []string
		for _, socket := range sockets {
			fdName, address, _ := strings.Cut(socket, "=")
			f, err := listeningFile(address)
			ts.Check(err)
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			names = append(names, fdName)
		}
		cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	stdout, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer stdout.Close()
	stderr, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if journal {
		var st syscall.Stat_t
		ts.Check(syscall.Fstat(int(stderr.Fd()), &st))
		cmd.Env = append(cmd.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	}
	ts.Check(cmd.Start())
	p := &process{cmd: cmd, done: make(chan struct{}), notify: m}
	go func() {
		cmd.Wait()
		m.close()
		close(p.done)
	}()
	s := onStage(ts)
	s.mu.Lock()
	s.procs[name] = p
	s.mu.Unlock()
	if broken {
		return
	}
	select {
	case <-m.ready:
	case <-p.done:
		ts.Fatalf("%s ended (%v):\n%s", name, cmd.ProcessState, ts.ReadFile(name+".err"))
	case <-time.After(patience):
		ts.Fatalf("%s is not ready:\n%s", name, ts.ReadFile(name+".err"))
	}
}

func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, key := range []string{"PATH", "HOME", "TMPDIR", "SOCK", "GOCOVERDIR", "CREDENTIALS_DIRECTORY"} {
		if value := ts.Getenv(key); value != "" {
			env = append(env, key+"="+value)
		}
	}
	return env
}

// listeningFile is what systemd does for a socket unit: "127.0.0.1:8080" or "unix:/path".
func listeningFile(address string) (*os.File, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			return nil, err
		}
		ln.SetUnlinkOnClose(false)
		defer ln.Close()
		return ln.File()
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	return ln.(*net.TCPListener).File()
}

// notifySocket is the end of NOTIFY_SOCKET that systemd holds. It writes
// what it is told to a file, a datagram a line, assignments separated by spaces.
type notifySocket struct {
	path  string
	conn  *net.UnixConn
	ready chan struct{}
	done  chan struct{}
}

func newNotifySocket(record string) (*notifySocket, error) {
	dir, err := os.MkdirTemp("", "notify") // short: a socket's path has 107 bytes
	if err != nil {
		return nil, err
	}
	m := &notifySocket{path: filepath.Join(dir, "s"), ready: make(chan struct{}), done: make(chan struct{})}
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	file, err := os.Create(record)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(m.done)
		defer os.RemoveAll(dir)
		defer file.Close()
		ready := sync.OnceFunc(func() { close(m.ready) })
		buf := make([]byte, 8192)
		for {
			n, err := m.conn.Read(buf)
			if err != nil {
				return
			}
			lines := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
			fmt.Fprintln(file, strings.Join(lines, " "))
			if slices.Contains(lines, "READY=1") {
				ready()
			}
		}
	}()
	return m, nil
}

func (m *notifySocket) close() {
	// What the process sent before it ended is still to be read.
	m.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	<-m.done
	m.conn.Close()
}

func running(ts *testscript.TestScript, name string) *process {
	s := onStage(ts)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.procs[name]
	if p == nil {
		ts.Fatalf("nothing was started as %q", name)
	}
	return p
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "signal", args, 2)
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}
	sig, ok := signals[args[1]]
	if !ok {
		ts.Fatalf("unknown signal %q", args[1])
	}
	ts.Check(running(ts, args[0]).cmd.Process.Signal(sig))
}

func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "ended", args, 2)
	p := running(ts, args[0])
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s is still running:\n%s", args[0], ts.ReadFile(args[0]+".err"))
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s ended with %s, want %s:\n%s", args[0], got, args[1], ts.ReadFile(args[0]+".err"))
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "exits", args, 2)
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got := strconv.Itoa(code); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// cmdExpand is for configuration files, whose ports are known only at run time.
func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "expand", args, 1)
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o644))
	}
}

func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "capture", args, 1)
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func cmdDeaf(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "deaf", args, 1)
	ln, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
}

func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "waitfor", args, 2)
	file := ts.MkAbs(args[0])
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	var last []byte
	if !eventually(func() bool {
		last, _ = os.ReadFile(file)
		return re.Match(last)
	}) {
		ts.Fatalf("%s has no match of %q:\n%s", args[0], args[1], last)
	}
}

// eventually asks until the answer is yes or the patience of the scripts ends.
func eventually(ask func() bool) bool {
	limit := time.Now().Add(patience)
	for !ask() {
		if time.Now().After(limit) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}
