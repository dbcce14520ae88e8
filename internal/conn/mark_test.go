package conn

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lowWaterOf asks the kernel.
func lowWaterOf(t *testing.T, s *Socket) (n int) {
	t.Helper()
	err := s.fd.Control(func(fd uintptr) {
		var err error
		if n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ask begins a wait for an answer, and returns when that has begun: a byte arrived at the peer before.
func ask(t *testing.T, s *Socket, peer net.Conn, in []byte) <-chan result {
	t.Helper()
	got := begin(func() (int, error) { return s.sendReceive([]byte("?"), &lent{in: in}) })
	if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTheMarkIsThereOnlyWhileMuchIsToCome(t *testing.T) {
	rawTCP(t, func(t *testing.T, s *Socket, _ net.Conn) {
		for _, step := range []struct {
			left int64
			want int
		}{
			{math.MaxInt64, lowWater}, {muchLeft, lowWater}, {muchLeft - 1, 1}, {0, 1}, {muchLeft, lowWater}, {0, 1},
		} {
			if s.Expect(step.left); lowWaterOf(t, s) != step.want {
				t.Errorf("with %d bytes to come the mark is %d, want %d", step.left, lowWaterOf(t, s), step.want)
			}
		}
	})
}

// Fewer bytes than the mark are not kept from the reader, and neither is an end. After a wait that was in vain there is no
// mark for a while.
func TestAMarkThatIsNotReachedIsGivenUpForAWhile(t *testing.T) {
	rawTCP(t, func(t *testing.T, s *Socket, peer net.Conn) {
		const body = 64 << 20
		s.Expect(body)
		got := ask(t, s, peer, make([]byte, 8))
		write(t, peer, []byte("some"))
		if r := soon(t, "Read", got); r.n != 4 || r.err != nil {
			t.Fatalf("Read = %d, %v; want 4, nil", r.n, r.err)
		}
		for _, step := range []struct {
			left int64
			want int
		}{
			{body - 4, 1}, {body - missedFor + 1, 1}, {body - missedFor, lowWater},
		} {
			if s.Expect(step.left); lowWaterOf(t, s) != step.want {
				t.Errorf("%d bytes after the wait in vain the mark is %d, want %d", body-step.left, lowWaterOf(t, s), step.want)
			}
		}
		got = ask(t, s, peer, make([]byte, 8))
		peer.Close()
		if r := soon(t, "Read", got); r.n != 0 || !errors.Is(r.err, io.EOF) {
			t.Errorf("Read = %d, %v; want 0, %v", r.n, r.err, io.EOF)
		}
		s.Expect(0)
		s.Expect(body)
		if n := lowWaterOf(t, s); n != lowWater {
			t.Errorf("for another body the mark is %d, want %d", n, lowWater)
		}
	})
}

func TestWaitsForMuchEndWithMuch(t *testing.T) {
	rawTCP(t, func(t *testing.T, s *Socket, peer net.Conn) {
		s.Expect(math.MaxInt64)
		s.mark.until = time.Now().Add(patience) // no bound, so that a busy machine changes nothing
		got := ask(t, s, peer, make([]byte, LargeBuffer))
		for range lowWater / 16384 {
			write(t, peer, bytes.Repeat([]byte("x"), 16384))
		}
		if r := soon(t, "Read", got); r.n != lowWater || r.err != nil {
			t.Errorf("Read = %d, %v; want %d, nil", r.n, r.err, lowWater)
		}
		if c := s.Calls(); c.Reads != 1 {
			t.Errorf("it took %d reads, want 1", c.Reads)
		}
	})
}

// late calls before when a wait is to be bounded.
type late struct {
	*net.TCPConn
	before func()
}

func (l *late) SetReadDeadline(at time.Time) error {
	if at.After(time.Now()) && l.before != nil {
		l.before()
	}
	return l.TCPConn.SetReadDeadline(at)
}

// The deadline of a wait for much does not take the place of the one that an interruption sets in the same moment, nor does
// the end of the wait take that back.
func TestNoInterruptionIsLostToAWaitForMuch(t *testing.T) {
	rawTCP(t, func(t *testing.T, s *Socket, _ net.Conn) {
		l := &late{TCPConn: s.net.(*net.TCPConn)}
		s = newSocket(l, true)
		l.before = func() {
			l.before = nil
			s.InterruptRead()
		}
		s.Expect(math.MaxInt64)
		if r := soon(t, "Read", begin(func() (int, error) { return s.Read(make([]byte, 8)) })); !errors.Is(r.err, ErrInterrupted) {
			t.Fatalf("Read = %v, want %v", r.err, ErrInterrupted)
		}
		if c := s.Calls(); c.Reads != 0 {
			t.Errorf("the interrupted Read waited")
		}
		s.Expect(0)
		if r := soon(t, "another Read", begin(func() (int, error) { return s.Read(make([]byte, 8)) })); !errors.Is(r.err, ErrInterrupted) {
			t.Fatalf("another Read = %v, want %v", r.err, ErrInterrupted)
		}
	})
}
