package conn

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lazyPair returns one end of a connection that nobody has waited for, and the other end.
func lazyPair(t *testing.T) (*lazyFile, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "peer")
	defer f.Close()
	peer, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	l := &lazyFile{name: "socket", fd: uintptr(fds[0])}
	t.Cleanup(func() {
		l.Close()
		peer.Close()
	})
	return l, peer
}

// ended reports what the peer of a closed socket reads.
func ended(t *testing.T, peer net.Conn) {
	t.Helper()
	r := soon(t, "the end of the connection", begin(func() (int, error) { return peer.Read(make([]byte, 1)) }))
	if !errors.Is(r.err, io.EOF) {
		t.Errorf("the peer read %d, %v; want the end", r.n, r.err)
	}
}

func open(t *testing.T, peer net.Conn) {
	t.Helper()
	_ = peer.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer read %v while somebody uses the socket", err)
	}
	_ = peer.SetReadDeadline(time.Time{})
}

// A caller whose request is there by the time he is looked at, and who leaves with the answer.
func TestThePollerDoesNotLearnOfWhoNeverMakesUsWait(t *testing.T) {
	if !rawByDefault {
		t.Skip("under the race detector connections go through net.Conn")
	}
	ours, theirs := acceptedPair(t, "tcp", "127.0.0.1:0")
	defer theirs.Close()
	if _, err := io.WriteString(theirs, "request"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request is there", func() bool { return unreadBytes(t, ours) == len("request") })
	s := NewSocket(ours)
	err := s.Run(func() bool {
		b := make([]byte, 100)
		n, err := s.TryRead(b)
		if string(b[:n]) != "request" || err != nil {
			t.Errorf("TryRead = %q, %v", b[:n], err)
		}
		if _, err := s.Write([]byte("answer")); err != nil {
			t.Error(err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.PeerGone() {
		t.Error("PeerGone() = true")
	}
	if ours.(*rawConn).file.polled.Load() {
		t.Error("the poller knows the socket, for which nobody waited")
	}
	if err := s.Leave(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(theirs); string(b) != "answer" || err != nil {
		t.Errorf("the caller read %q, %v", b, err)
	}
	if _, err := s.Write([]byte("more")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Leave = %v, want %v", err, os.ErrClosed)
	}
}

func TestALazyFileIsClosedWhenNobodyUsesIt(t *testing.T) {
	for name, use := range map[string]func(l *lazyFile, f func()) error{
		"Control": func(l *lazyFile, f func()) error { return l.Control(func(uintptr) { f() }) },
		"Read":    func(l *lazyFile, f func()) error { return l.Read(func(uintptr) bool { f(); return true }) },
		"Write":   func(l *lazyFile, f func()) error { return l.Write(func(uintptr) bool { f(); return true }) },
		"Read, polled meanwhile": func(l *lazyFile, f func()) error {
			return l.Read(func(uintptr) bool { err := l.poll(); f(); return err == nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, peer := lazyPair(t)
			err := use(l, func() {
				if l.closeUnpolled() {
					t.Error("closeUnpolled() = true while somebody uses it")
				}
				if err := l.Close(); err != nil {
					t.Errorf("Close() = %v", err)
				}
				open(t, peer)
			})
			if err != nil {
				t.Errorf("%v", err)
			}
			ended(t, peer)
			for what, err := range map[string]error{
				"Close":       l.Close(),
				"Control":     l.Control(func(uintptr) { t.Error("called") }),
				"Read":        l.Read(func(uintptr) bool { t.Error("called"); return true }),
				"SetDeadline": l.SetDeadline(time.Time{}),
			} {
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("%s after Close = %v, want %v", what, err, os.ErrClosed)
				}
			}
		})
	}
}

func TestCloseEndsWaitsOfALazyFile(t *testing.T) {
	l, peer := lazyPair(t)
	never := func(uintptr) bool { return false }
	err := l.Read(func(uintptr) bool { // keeps it open, as somebody does who came before it was polled
		waiting := make(chan error, 1)
		go func() { waiting <- l.Write(full(make([]byte, 1<<16))) }()
		eventually(t, "somebody waits", func() bool { return l.polled.Load() })
		if err := l.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
		if err := soon(t, "the end of the wait", waiting); !errors.Is(err, os.ErrClosed) {
			t.Errorf("a write that the peer did not take = %v, want %v", err, os.ErrClosed)
		}
		if err := l.Write(never); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Write after Close = %v, want %v", err, os.ErrClosed)
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, peer); err != nil { // until the end, which so is there
		t.Error(err)
	}
	if err := l.Control(func(uintptr) {}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Control after Close = %v, want %v", err, os.ErrClosed)
	}
}

// full writes until the peer's buffer is, and then waits.
func full(b []byte) func(fd uintptr) bool {
	return func(fd uintptr) bool {
		for {
			if _, err := writeNow(fd, b); err != nil {
				return !errors.Is(err, ErrWouldBlock)
			}
		}
	}
}

func TestDeadlinesOfALazyFile(t *testing.T) {
	never := func(uintptr) bool { return false }
	for name, prepare := range map[string]func(l *lazyFile){
		"before it is polled": func(*lazyFile) {},
		"polled":              func(l *lazyFile) { _ = l.poll() },
	} {
		t.Run(name, func(t *testing.T) {
			l, peer := lazyPair(t)
			prepare(l)
			if err := l.SetDeadline(past()); err != nil {
				t.Fatal(err)
			}
			if err := l.Read(never); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read = %v, want %v", err, os.ErrDeadlineExceeded)
			}
			if err := l.Write(never); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write = %v, want %v", err, os.ErrDeadlineExceeded)
			}
			if err := l.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			calls := 0
			err := l.Read(func(uintptr) bool {
				if calls++; calls == 1 { // is about to wait
					if err := l.SetReadDeadline(past()); err != nil {
						t.Error(err)
					}
				}
				return false
			})
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read = %v after a deadline that came while it looked, want %v", err, os.ErrDeadlineExceeded)
			}
			if err := l.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			got := begin(func() (n int, _ error) {
				b := make([]byte, 10)
				err := l.Read(func(fd uintptr) bool {
					var err error
					n, err = readNow(fd, b)
					return !errors.Is(err, ErrWouldBlock)
				})
				return n, err
			})
			write(t, peer, []byte("hello"))
			if r := soon(t, "bytes", got); r.n != 5 || r.err != nil {
				t.Errorf("read %d bytes, %v; want 5", r.n, r.err)
			}
		})
	}
}

// For the race detector: everything at once, and the descriptor is closed once, in the end.
func TestALazyFileInManyHands(t *testing.T) {
	for range 200 {
		l, peer := lazyPair(t)
		var all sync.WaitGroup
		for _, do := range []func() error{
			func() error { return l.Control(func(uintptr) {}) },
			func() error { return l.Read(func(uintptr) bool { return l.polled.Load() }) },
			func() error { return l.Write(func(uintptr) bool { return true }) },
			l.poll,
			func() error { return l.SetReadDeadline(past()) },
			l.Close,
			l.Close,
		} {
			all.Go(func() {
				if err := do(); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		ended(t, peer)
	}
}
