package conn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

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
						n, err := s.SendReceive(out, in)
						if err != nil || !bytes.Equal(in[:n], out) {
							t.Errorf("round %d: SendReceive = %v, %v; want %v", i, in[:n], err, out)
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
		got := begin(func() (int, error) { return s.SendReceive(out, in) })
		heard := make([]byte, len(out))
		if _, err := io.ReadFull(peer, heard); err != nil || !bytes.Equal(heard, out) {
			t.Fatalf("the peer read something else, %v", err)
		}
		write(t, peer, []byte("thanks"))
		if r := soon(t, "SendReceive", got); r.err != nil || string(in[:r.n]) != "thanks" {
			t.Errorf("SendReceive = %q, %v; want %q", in[:r.n], r.err, "thanks")
		}
	})
}

func TestSendReceiveIsNudged(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, n network) {
		for i := range 200 {
			s.Nudge()
			in := make([]byte, 16)
			got := begin(func() (int, error) { return s.SendReceive([]byte("?"), in) })
			s.Nudge()
			if _, err := peer.Read(make([]byte, 16)); err != nil {
				t.Fatal(err)
			}
			s.Nudge()
			write(t, peer, []byte("!"))
			if r := soon(t, "SendReceive", got); r.err != nil || string(in[:r.n]) != "!" {
				t.Fatalf("SendReceive %d = %q, %v; want %q", i, in[:r.n], r.err, "!")
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
		r := soon(t, "SendReceive", begin(func() (int, error) { return s.SendReceive([]byte("hello"), in) }))
		if r.err != nil || string(in[:r.n]) != "go away" {
			t.Fatalf("SendReceive = %q, %v; want %q", in[:r.n], r.err, "go away")
		}
		for range 3 {
			r = soon(t, "SendReceive", begin(func() (int, error) { return s.SendReceive([]byte("hello"), in) }))
		}
		if r.n != 0 || !isReset(r.err) {
			t.Errorf("SendReceive on a broken connection = %d, %v; want 0 and the error of the write", r.n, r.err)
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
		r := soon(t, "SendReceive", begin(func() (int, error) { return s.SendReceive([]byte("hello"), in) }))
		if r.err != nil || string(in[:r.n]) != "go away" {
			t.Errorf("SendReceive = %q, %v; want %q", in[:r.n], r.err, "go away")
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
		if got := testing.AllocsPerRun(200, func() {
			if n, err := s.SendReceive(out, in); n != len(out) || err != nil {
				t.Errorf("SendReceive = %d, %v", n, err)
			}
		}); got != 0 {
			t.Errorf("SendReceive allocates %v times, want 0", got)
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
