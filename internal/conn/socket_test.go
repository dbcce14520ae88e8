package conn

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func TestRunSeesBytesThatCameBeforeIt(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		sent := write(t, peer, []byte("early"))
		if n.fd {
			soon(t, "the peer's write", sent)
		}
		b := make([]byte, 16)
		var got string
		err := s.Run(func() bool {
			n, err := s.TryRead(b)
			got += string(b[:n])
			return err != nil && !errors.Is(err, ErrWouldBlock) || len(got) == 5
		})
		if err != nil || got != "early" {
			t.Errorf("Run = %v after %q, want nil after %q", err, got, "early")
		}
	})
}

// Bytes come in bursts of every size, so that steps end with a short read, with a full one and with nothing, and parks
// and wakes fall into each other.
func TestRunServesAllThatComes(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		const rounds = 3000
		rnd := rand.New(rand.NewPCG(1, 2))
		sizes := make([]int, rounds)
		for i := range sizes {
			sizes[i] = 1 + rnd.IntN(300)
		}
		served := begin(func() (int, error) {
			b := make([]byte, 64)
			total := 0
			err := s.Run(func() bool {
				for {
					n, err := s.TryRead(b)
					total += n
					if n > 0 {
						if _, err := s.Write(b[:n]); err != nil {
							t.Errorf("Write = %v", err)
							return true
						}
					}
					switch {
					case errors.Is(err, ErrWouldBlock):
						return false
					case err != nil:
						return true
					case n < len(b):
						return false
					}
				}
			})
			return total, err
		})
		want := 0
		for i, size := range sizes {
			out, in := bytes.Repeat([]byte{byte(i)}, size), make([]byte, size)
			sent := write(t, peer, out)
			if r := soon(t, "the echo", begin(func() (int, error) { return io.ReadFull(peer, in) })); r.err != nil || !bytes.Equal(in, out) {
				t.Fatalf("round %d: echo = %d bytes, %v; want %d", i, r.n, r.err, size)
			}
			soon(t, "the peer's write", sent)
			want += size
		}
		peer.Close()
		s.Nudge() // the end may have come with the last bytes
		if r := soon(t, "Run to end", served); r.n != want || r.err != nil {
			t.Errorf("Run = %v after %d bytes, want nil after %d", r.err, r.n, want)
		}
	})
}

// An end that arrives together with bytes is announced with them only. Whoever looks after the Socket finds it and says so.
func TestNudgeShowsAnEndThatCameWithBytes(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		last := func() (int, error) {
			k, err := peer.Write([]byte("last"))
			peer.Close()
			return k, err
		}
		sent := begin(last)
		if n.fd {
			soon(t, "the peer's write", sent)
			eventually(t, "PeerGone", s.PeerGone)
		}
		parked := make(chan string, 1)
		ended := begin(func() (int, error) {
			b, total := make([]byte, 64), 0
			var end error
			err := s.Run(func() bool {
				n, err := s.TryRead(b)
				total += n
				if n > 0 {
					parked <- string(b[:n])
					return false
				}
				end = err
				return !errors.Is(err, ErrWouldBlock)
			})
			return total, errors.Join(err, end)
		})
		if got := soon(t, "the last bytes", parked); got != "last" {
			t.Errorf("read %q, want %q", got, "last")
		}
		s.Nudge()
		if r := soon(t, "the end", ended); !errors.Is(r.err, io.EOF) {
			t.Errorf("Run and TryRead = %v, want %v", r.err, io.EOF)
		}
	})
}

func TestNudgeIsNoError(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		for i := range 100 {
			s.Nudge() // nobody waits yet
			got := begin(func() (int, error) { return s.Read(make([]byte, 8)) })
			for range i {
				s.Nudge()
			}
			write(t, peer, []byte{1})
			if r := soon(t, "Read", got); r.n != 1 || r.err != nil {
				t.Fatalf("Read %d = %d, %v; want 1, nil", i, r.n, r.err)
			}
		}
		steps := make(chan bool, 1000)
		ended := begin(func() (int, error) {
			return 0, s.Run(func() bool {
				n, _ := s.TryRead(make([]byte, 8))
				steps <- true
				return n > 0
			})
		})
		for range 100 {
			s.Nudge()
		}
		write(t, peer, []byte{1})
		if r := soon(t, "Run", ended); r.err != nil {
			t.Errorf("Run = %v, want nil", r.err)
		}
	})
}

func TestReadReturnsTheEnd(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		got := begin(func() (int, error) { return s.Read(make([]byte, 8)) })
		peer.Close()
		if r := soon(t, "Read", got); r.n != 0 || !errors.Is(r.err, io.EOF) {
			t.Errorf("Read = %d, %v; want 0, %v", r.n, r.err, io.EOF)
		}
	})
}

func TestInterruptEndsWaits(t *testing.T) {
	waits := map[string]func(s *Socket) (int, error){
		"Read":        func(s *Socket) (int, error) { return s.Read(make([]byte, 8)) },
		"SendReceive": func(s *Socket) (int, error) { return s.sendReceive([]byte("x"), &lent{in: make([]byte, 8)}) },
		"Run": func(s *Socket) (int, error) {
			var last error
			err := s.Run(func() bool {
				_, last = s.TryRead(make([]byte, 8))
				return last != nil && !errors.Is(last, ErrWouldBlock)
			})
			if err == nil {
				err = last
			}
			return 0, err
		},
		"Write": func(s *Socket) (int, error) { return s.Write(make([]byte, 64<<20)) },
	}
	for name, wait := range waits {
		for _, when := range []string{"before", "during"} {
			t.Run(name+"/"+when, func(t *testing.T) {
				each(t, func(t *testing.T, s *Socket, _ net.Conn, _ network) {
					if when == "before" {
						s.Interrupt()
					}
					got := begin(func() (int, error) { return wait(s) })
					if when == "during" {
						if name == "Write" {
							eventually(t, "WriteBlocked", s.WriteBlocked)
						}
						s.Interrupt()
					}
					if r := soon(t, name, got); !errors.Is(r.err, ErrInterrupted) {
						t.Errorf("%s = %v, want %v", name, r.err, ErrInterrupted)
					}
					if !s.Interrupted() {
						t.Error("Interrupted() = false")
					}
					again := begin(func() (int, error) { return wait(s) })
					if r := soon(t, "another "+name, again); !errors.Is(r.err, ErrInterrupted) {
						t.Errorf("another %s = %v, want %v", name, r.err, ErrInterrupted)
					}
				})
			})
		}
	}
}

func TestInterruptReadLeavesALastWord(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		got := begin(func() (int, error) { return s.Read(make([]byte, 8)) })
		s.InterruptRead()
		if r := soon(t, "Read", got); !errors.Is(r.err, ErrInterrupted) {
			t.Errorf("Read = %v, want %v", r.err, ErrInterrupted)
		}
		heard := make([]byte, 3)
		read := begin(func() (int, error) { return io.ReadFull(peer, heard) })
		if n, err := s.Write([]byte("bye")); n != 3 || err != nil {
			t.Errorf("Write = %d, %v; want 3, nil", n, err)
		}
		if soon(t, "the peer", read); string(heard) != "bye" {
			t.Errorf("the peer read %q, want %q", heard, "bye")
		}
		s.Resume()
		if s.Interrupted() {
			t.Error("Interrupted() = true after Resume")
		}
		write(t, peer, []byte("more"))
		if got := readString(t, s, 4); got != "more" {
			t.Errorf("read %q after Resume, want %q", got, "more")
		}
	})
}

// A read that a nudge woke takes back the deadline that woke it. One that an interruption sets in the same moment must
// survive that, or a later read would wait for ever.
func TestNoInterruptionIsLostToANudge(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, _ net.Conn, _ network) {
		read := func() (int, error) { return s.Read(make([]byte, 8)) }
		for i := range 500 {
			got := begin(read)
			for range i % 5 { // now and then it is in the wait by now
				runtime.Gosched()
			}
			s.Nudge()
			for range i % 3 {
				runtime.Gosched()
			}
			s.InterruptRead()
			if r := soon(t, "Read", got); !errors.Is(r.err, ErrInterrupted) {
				t.Fatalf("%d: Read = %v, want %v", i, r.err, ErrInterrupted)
			}
			if r := soon(t, "a later Read", begin(read)); !errors.Is(r.err, ErrInterrupted) {
				t.Fatalf("%d: a later Read = %v, want %v", i, r.err, ErrInterrupted)
			}
			s.Resume()
		}
	})
}

// hooked calls before whenever a read's deadline is taken back.
type hooked struct {
	net.Conn
	before func()
}

func (h *hooked) SetReadDeadline(at time.Time) error {
	if at.IsZero() && h.before != nil {
		h.before()
	}
	return h.Conn.SetReadDeadline(at)
}

// The same, for the moment in which it matters.
func TestInterruptionBetweenWakingAndRearmingIsKept(t *testing.T) {
	for name, wait := range map[string]func(s *Socket) (int, error){
		"Read":    func(s *Socket) (int, error) { return s.Read(make([]byte, 8)) },
		"ReadNow": func(s *Socket) (int, error) { return s.ReadNow(make([]byte, 8)) },
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			defer theirs.Close()
			h := &hooked{Conn: ours}
			s := newSocket(h, false)
			h.before = func() {
				h.before = nil
				s.InterruptRead()
			}
			s.Nudge()
			soon(t, name, begin(func() (int, error) { return wait(s) }))
			if r := soon(t, "a later Read", begin(func() (int, error) { return s.Read(make([]byte, 8)) })); !errors.Is(r.err, ErrInterrupted) {
				t.Errorf("a later Read = %v, want %v", r.err, ErrInterrupted)
			}
		})
	}
}

func TestReadNowNeverWaits(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		b := make([]byte, 8)
		if n, err := s.ReadNow(b); n != 0 || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("ReadNow = %d, %v; want 0, %v", n, err, ErrWouldBlock)
		}
		poll := func() (n int, err error) {
			eventually(t, "something to read", func() bool {
				n, err = s.ReadNow(b)
				return !errors.Is(err, ErrWouldBlock)
			})
			return n, err
		}
		write(t, peer, []byte("now"))
		if n, err := poll(); string(b[:n]) != "now" || err != nil {
			t.Errorf("ReadNow = %q, %v; want %q", b[:n], err, "now")
		}
		s.Interrupt()
		if n, err := s.ReadNow(b); n != 0 || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("ReadNow after Interrupt = %d, %v; want 0, %v", n, err, ErrWouldBlock)
		}
		if r := soon(t, "Read", begin(func() (int, error) { return s.Read(b) })); !errors.Is(r.err, ErrInterrupted) {
			t.Errorf("Read after Interrupt and ReadNow = %v, want %v", r.err, ErrInterrupted)
		}
		peer.Close()
		if n, err := poll(); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("ReadNow = %d, %v; want 0, %v", n, err, io.EOF)
		}
	})
}

func TestLargeWritesArriveWhole(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		want := make([]byte, 8<<20)
		for i := range want {
			want[i] = byte(i * 31 >> 3)
		}
		if s.WriteBlocked() {
			t.Error("WriteBlocked() = true before any write")
		}
		wrote := begin(func() (int, error) { return s.Write(want) })
		eventually(t, "WriteBlocked", s.WriteBlocked)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(peer, got); err != nil {
			t.Fatal(err)
		}
		if r := soon(t, "Write", wrote); r.n != len(want) || r.err != nil {
			t.Errorf("Write = %d, %v; want %d, nil", r.n, r.err, len(want))
		}
		if !bytes.Equal(got, want) {
			t.Error("what arrived is not what was written")
		}
		if s.WriteBlocked() {
			t.Error("WriteBlocked() = true after the write")
		}
	})
}

func TestWritesInsideOfAStepArriveWhole(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		answer := bytes.Repeat([]byte("0123456789abcdef"), 256<<10)
		write(t, peer, []byte("?"))
		ran := begin(func() (n int, err error) {
			e := s.Run(func() bool {
				if n, _ := s.TryRead(make([]byte, 8)); n == 0 {
					return false
				}
				n, err = s.Write(answer)
				return true
			})
			return n, errors.Join(err, e)
		})
		got := make([]byte, len(answer))
		if _, err := io.ReadFull(peer, got); err != nil {
			t.Fatal(err)
		}
		if r := soon(t, "Run", ran); r.n != len(answer) || r.err != nil || !bytes.Equal(got, answer) {
			t.Errorf("Write = %d, %v; want %d, nil and the same bytes", r.n, r.err, len(answer))
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, _ net.Conn, _ network) {
		read := begin(func() (int, error) { return s.Read(make([]byte, 8)) })
		wrote := begin(func() (int, error) { return s.Write(make([]byte, 64<<20)) })
		eventually(t, "WriteBlocked", s.WriteBlocked)
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		for what, got := range map[string]<-chan result{"Read": read, "Write": wrote} {
			if r := soon(t, what, got); !isClosed(r.err) {
				t.Errorf("%s = %v, want %v", what, r.err, net.ErrClosed)
			}
		}
	})
}

func TestCloseIsACleanEndAndAbortIsNot(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		write := begin(func() (int, error) { return s.Write([]byte("end")) })
		got, err := make([]byte, 8), error(nil)
		k, _ := peer.Read(got)
		soon(t, "Write", write)
		if err = s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err = peer.Read(got[k:]); err != io.EOF || string(got[:k]) != "end" {
			t.Errorf("after Close the peer read %q and %v, want %q and %v", got[:k], err, "end", io.EOF)
		}
		ours, theirs := n.pair(t)
		defer theirs.Close()
		if err := newSocket(ours, s.raw != nil).Abort(); err != nil {
			t.Fatal(err)
		}
		want := io.EOF
		if n.tcp {
			want = error(syscall.ECONNRESET)
		}
		if _, err := theirs.Read(got); !errors.Is(err, want) {
			t.Errorf("after Abort the peer read %v, want %v", err, want)
		}
	})
}

func TestCloseWriteEndsOneDirection(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		err := s.CloseWrite()
		if !n.fd {
			if err == nil {
				t.Error("CloseWrite of a pipe = nil, want an error")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := peer.Read(make([]byte, 8)); err != io.EOF {
			t.Errorf("the peer read %v, want %v", err, io.EOF)
		}
		write(t, peer, []byte("still"))
		if got := readString(t, s, 5); got != "still" {
			t.Errorf("read %q, want %q", got, "still")
		}
	})
}

func TestPeerGone(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		if s.PeerGone() {
			t.Error("PeerGone() = true of a peer that is there")
		}
		if !n.fd {
			return // it cannot be told
		}
		soon(t, "the peer's write", write(t, peer, []byte("left")))
		if s.PeerGone() {
			t.Error("PeerGone() = true with bytes to read")
		}
		if err := peer.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "PeerGone", s.PeerGone)
		if got := readString(t, s, 4); got != "left" {
			t.Errorf("read %q, want %q", got, "left")
		}
		if !s.PeerGone() {
			t.Error("PeerGone() = false after the bytes were read")
		}
		s.Close()
		if s.PeerGone() {
			t.Error("PeerGone() = true of a Socket that we closed")
		}
	})
}

func TestSocketKnowsItsAddresses(t *testing.T) {
	ours, theirs := tcpPair(t)
	defer theirs.Close()
	s := NewSocket(ours)
	defer s.Close()
	if got, want := s.LocalAddr().String(), theirs.RemoteAddr().String(); got != want {
		t.Errorf("LocalAddr() = %s, want %s", got, want)
	}
	if got, want := s.RemoteAddr().String(), theirs.LocalAddr().String(); got != want {
		t.Errorf("RemoteAddr() = %s, want %s", got, want)
	}
	if (s.raw != nil) != rawByDefault {
		t.Errorf("raw = %v, want %v", s.raw != nil, rawByDefault)
	}
}
