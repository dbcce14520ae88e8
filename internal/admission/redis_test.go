package admission

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// store is a real one, on a socket in the test's own folder.
type store struct {
	t      testing.TB
	args   []string
	socket string
	cmd    *exec.Cmd
	output chan struct{} // closed when it has said all it will
}

// startStore starts redis-server, which ends with the test.
func startStore(t testing.TB, args ...string) *store {
	t.Helper()
	if testing.Short() {
		t.Skip("takes a real redis-server")
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("these tests take a real store: install redis-server (apt-get install redis-server), or run with -short: %v", err)
	}
	dir := t.TempDir()
	s := &store{t: t, socket: filepath.Join(dir, "redis.sock")}
	s.args = append([]string{"--port", "0", "--unixsocket", s.socket, "--dir", dir, "--save", "", "--appendonly", "no", "--daemonize", "no"}, args...)
	s.start()
	t.Cleanup(s.kill)
	return s
}

// start returns when the store takes connections.
func (s *store) start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	var said strings.Builder
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if strings.Contains(strings.ToLower(line), "ready to accept connections") {
			break
		}
		if err != nil {
			_ = s.cmd.Wait()
			s.t.Fatalf("redis-server ended while starting: %v\n%s", err, said.String())
		}
	}
	s.output = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_, _ = io.Copy(io.Discard, lines)
	}(s.output)
}

// kill returns when the store has gone, without having had time to say goodbye.
func (s *store) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.output
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *store) url() string { return "unix://" + s.socket }

// do sends a command over a connection of its own, and returns what the store said: a string, an int64 or a list.
func (s *store) do(args ...string) any {
	s.t.Helper()
	c, err := net.Dial("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	w := newWire(c)
	w.command(args...)
	if err := w.send(); err != nil {
		s.t.Fatal(err)
	}
	reply, err := anyReply(bufio.NewReader(c))
	if err != nil {
		s.t.Fatalf("%q: %v", args, err)
	}
	return reply
}

// anyReply reads whatever a store says, which is to be trusted.
func anyReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], strings.TrimSpace(line[1:])
	n, _ := strconv.ParseInt(text, 10, 64)
	switch kind {
	case '-':
		return nil, refusal(text)
	case ':':
		return n, nil
	case '$':
		if n < 0 {
			return nil, nil
		}
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return string(b[:n]), err
	case '*':
		list := make([]any, n)
		for i := range list {
			if list[i], err = anyReply(r); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return text, nil
}

// names returns the keys in the store.
func (s *store) names() (names []string) {
	s.t.Helper()
	list, _ := s.do("KEYS", "*").([]any)
	for _, name := range list {
		names = append(names, name.(string))
	}
	return names
}

// cut ends all connections but that of the question.
func (s *store) cut() { s.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") }

// fakeStore speaks as much of the protocol as a Shared needs, on r and w. answer
// is asked for each question, and may take its time.
func fakeStore(rw io.ReadWriteCloser, answer func(key string, want int) (granted, waitMicros, fullMicros int)) {
	defer rw.Close()
	r := bufio.NewReader(rw)
	for {
		args, err := readCommand(r)
		if err != nil {
			return
		}
		reply := "-ERR unknown command\r\n"
		switch strings.ToLower(args[0]) {
		case "eval", "evalsha":
			var want int
			fmt.Sscan(args[6], &want)
			granted, wait, full := answer(args[3], want)
			reply = fmt.Sprintf("*3\r\n:%d\r\n:%d\r\n:%d\r\n", granted, wait, full)
		}
		if _, err := io.WriteString(rw, reply); err != nil {
			return
		}
	}
}

func readCommand(r *bufio.Reader) ([]string, error) {
	var n int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		var length int
		if _, err := fmt.Fscanf(r, "$%d\r\n", &length); err != nil {
			return nil, err
		}
		arg := make([]byte, length+2)
		if _, err := io.ReadFull(r, arg); err != nil {
			return nil, err
		}
		args[i] = string(arg[:length])
	}
	return args, nil
}
