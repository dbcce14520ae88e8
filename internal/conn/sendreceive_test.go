package conn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// lent is memory for sendReceive.
type lent struct{ in []byte }

func (l *lent) room() []byte { return l.in }
func (l *lent) unused()      {}
func (l *lent) wrote(int)    {}

// ledger is what a sendReceive says of memory.
type ledger struct {
	asked atomic.Int32 // how often it asked for room
	lends atomic.Int32 // 1 while it has some
	told  atomic.Int32 // how often wrote was called
	sent  atomic.Int32 // with what
}

func (l *ledger) room() []byte { l.asked.Add(1); l.lends.Store(1); return make([]byte, 8) }
func (l *ledger) unused()      { l.lends.Store(0) }
func (l *ledger) wrote(n int)  { l.told.Add(1); l.sent.Store(int32(n)) }

// Whoever waits needs no memory: what was to be sent has left, and what comes is not there yet.
func TestAWaitTakesNoMemory(t *testing.T) {
	rawTCP(t, func(t *testing.T, s *Socket, theirs net.Conn) {
		for _, c := range []struct {
			out         string
			told, asked int32
		}{
			{"question", 1, 0},
			{"", 0, 1}, // it has to look whether there is something
		} {
			var l ledger
			got := begin(func() (int, error) { return s.sendReceive([]byte(c.out), &l) })
			if _, err := io.ReadFull(theirs, make([]byte, len(c.out))); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it waits and has no memory", func() bool {
				return l.told.Load() == c.told && l.asked.Load() == c.asked && l.lends.Load() == 0
			})
			if _, err := io.WriteString(theirs, "answer"); err != nil {
				t.Fatal(err)
			}
			if r := soon(t, "the answer", got); r.n != len("answer") || r.err != nil || l.told.Load() != c.told || int(l.sent.Load()) != len(c.out) {
				t.Errorf("sendReceive(%q) = %d, %v, and wrote(%d) was called %d times", c.out, r.n, r.err, l.sent.Load(), l.told.Load())
			}
		}
	})
}

// Memory goes back whatever happens, also when the wait was over before anything could be sent.
func TestAnInterruptedSendGivesItsMemoryBack(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, _ net.Conn, _ network) {
		s.Interrupt()
		var l ledger
		if n, err := s.sendReceive([]byte("question"), &l); n != 0 || !errors.Is(err, ErrInterrupted) {
			t.Errorf("sendReceive = %d, %v; want %v", n, err, ErrInterrupted)
		}
		if l.told.Load() != 1 || l.sent.Load() != 0 {
			t.Errorf("wrote(%d) was called %d times, want once, with 0", l.sent.Load(), l.told.Load())
		}
	})
}

// The wait for an answer skips the read that would find nothing, which is right only if no answer can slip through
// between the write and the wait, however early or late it comes.
func TestSendReceiveMissesNoAnswer(t *testing.T) {
	for _, late := range []bool{false, true} {
		name, rounds := "at once", 20000
		if late {
			name, rounds = "late", 300
		}
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
				go func() {
					b := make([]byte, 16)
					for i := 0; ; i++ {
						n, err := peer.Read(b)
						if err != nil {
							return
						}
						switch {
						case late && i%3 == 0:
							<-time.After(50 * time.Microsecond)
						case late:
							runtime.Gosched()
						}
						if _, err := peer.Write(b[:n]); err != nil {
							return
						}
					}
				}()
				done := begin(func() (int, error) {
					in := make([]byte, 16)
					for i := range rounds {
						out := []byte{byte(i), byte(i >> 8), 7}
						n, err := s.sendReceive(out, &lent{in: in})
						if err != nil || !bytes.Equal(in[:n], out) {
							t.Errorf("round %d: sendReceive = %v, %v; want %v", i, in[:n], err, out)
							return i, err
						}
					}
					return rounds, nil
				})
				if r := soon(t, "the last answer", done); r.n != rounds {
					t.Errorf("%d rounds of %d", r.n, rounds)
				}
			})
		})
	}
}

func TestSendReceiveSendsAllOfMuch(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		out := bytes.Repeat([]byte("0123456789abcdef"), 256<<10)
		in := make([]byte, 16)
		got := begin(func() (int, error) { return s.sendReceive(out, &lent{in: in}) })
		heard := make([]byte, len(out))
		if _, err := io.ReadFull(peer, heard); err != nil || !bytes.Equal(heard, out) {
			t.Fatalf("the peer read something else, %v", err)
		}
		write(t, peer, []byte("thanks"))
		if r := soon(t, "sendReceive", got); r.err != nil || string(in[:r.n]) != "thanks" {
			t.Errorf("sendReceive = %q, %v; want %q", in[:r.n], r.err, "thanks")
		}
	})
}

func TestSendReceiveIsNudged(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		for i := range 200 {
			s.Nudge()
			in := make([]byte, 16)
			got := begin(func() (int, error) { return s.sendReceive([]byte("?"), &lent{in: in}) })
			s.Nudge()
			if _, err := peer.Read(make([]byte, 16)); err != nil {
				t.Fatal(err)
			}
			s.Nudge()
			write(t, peer, []byte("!"))
			if r := soon(t, "sendReceive", got); r.err != nil || string(in[:r.n]) != "!" {
				t.Fatalf("sendReceive %d = %q, %v; want %q", i, in[:r.n], r.err, "!")
			}
		}
	})
}

// A server that refuses a client says why and hangs up, perhaps before it read what the client sends.
func TestSendReceiveReturnsLastWordsRatherThanTheBrokenPipe(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		if !n.fd {
			return // what was not read is lost with a pipe
		}
		if _, err := peer.Write([]byte("go away")); err != nil {
			t.Fatal(err)
		}
		peer.Close()
		eventually(t, "PeerGone", s.PeerGone)
		in := make([]byte, 64)
		// On TCP the first of these meets a peer that is just gone, and is answered with a reset.
		r := soon(t, "sendReceive", begin(func() (int, error) { return s.sendReceive([]byte("hello"), &lent{in: in}) }))
		if r.err != nil || string(in[:r.n]) != "go away" {
			t.Fatalf("sendReceive = %q, %v; want %q", in[:r.n], r.err, "go away")
		}
		for range 3 {
			r = soon(t, "sendReceive", begin(func() (int, error) { return s.sendReceive([]byte("hello"), &lent{in: in}) }))
		}
		if r.n != 0 || !isReset(r.err) {
			t.Errorf("sendReceive on a broken connection = %d, %v; want 0 and the error of the write", r.n, r.err)
		}
	})
}

func TestSendReceiveReturnsLastWordsAfterAReset(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		if !n.tcp {
			return
		}
		// A peer that closes without having read everything resets the connection.
		if _, err := s.Write([]byte("unread")); err != nil {
			t.Fatal(err)
		}
		if _, err := peer.Write([]byte("go away")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "our bytes to arrive", func() bool { return unreadBytes(t, peer) > 0 })
		peer.Close()
		eventually(t, "PeerGone", s.PeerGone)
		in := make([]byte, 64)
		r := soon(t, "sendReceive", begin(func() (int, error) { return s.sendReceive([]byte("hello"), &lent{in: in}) }))
		if r.err != nil || string(in[:r.n]) != "go away" {
			t.Errorf("sendReceive = %q, %v; want %q", in[:r.n], r.err, "go away")
		}
	})
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if !rawByDefault {
		t.Skip("the race detector allocates")
	}
	echo := func(c net.Conn) {
		b := make([]byte, 64)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		if !n.fd {
			return // net.Pipe allocates
		}
		go echo(peer)
		out, in := []byte("question"), make([]byte, 64)
		l := &lent{in: in}
		if got := testing.AllocsPerRun(200, func() {
			if n, err := s.sendReceive(out, l); n != len(out) || err != nil {
				t.Errorf("sendReceive = %d, %v", n, err)
			}
		}); got != 0 {
			t.Errorf("sendReceive allocates %v times, want 0", got)
		}
		step := func() bool {
			n, err := s.TryRead(in)
			return n > 0 || err != nil && !errors.Is(err, ErrWouldBlock)
		}
		if got := testing.AllocsPerRun(200, func() {
			if _, err := s.Write(out); err != nil {
				t.Errorf("Write: %v", err)
			}
			if err := s.Run(step); err != nil {
				t.Errorf("Run: %v", err)
			}
		}); got != 0 {
			t.Errorf("Write, Run and TryRead allocate %v times, want 0", got)
		}
		if got := testing.AllocsPerRun(200, func() { _, _ = s.ReadNow(in) }); got != 0 {
			t.Errorf("ReadNow allocates %v times, want 0", got)
		}
		if got := testing.AllocsPerRun(200, func() { _ = s.PeerGone() }); got != 0 {
			t.Errorf("PeerGone allocates %v times, want 0", got)
		}
	})
}
