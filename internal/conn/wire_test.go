package conn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// counted counts the writes that reach a net.Conn.
type counted struct {
	net.Conn
	mu     sync.Mutex // guards the following
	writes int
	bytes  int
}

func (c *counted) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.bytes += len(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *counted) seen() (writes, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, c.bytes
}

// newCounted returns a Wire whose peer throws away what it reads, until the test ends.
func newCounted(t *testing.T) (*Wire, *counted) {
	t.Helper()
	ours, theirs := tcpPair(t)
	c := &counted{Conn: ours}
	drained := begin(func() (int, error) {
		n, err := io.Copy(io.Discard, theirs)
		return int(n), err
	})
	t.Cleanup(func() {
		ours.Close()
		soon(t, "the peer", drained)
		theirs.Close()
	})
	return NewWire(newSocket(c, false), NewBuffers()), c
}

func TestWireHoldsWritesBack(t *testing.T) {
	w, c := newCounted(t)
	want := func(what string, writes, bytes int) {
		t.Helper()
		if gotWrites, gotBytes := c.seen(); gotWrites != writes || gotBytes != bytes {
			t.Errorf("%s: %d writes of %d bytes, want %d of %d", what, gotWrites, gotBytes, writes, bytes)
		}
	}
	put := func(n int) {
		t.Helper()
		if got, err := w.Write(make([]byte, n)); got != n || err != nil {
			t.Fatalf("Write of %d bytes = %d, %v", n, got, err)
		}
	}
	put(100)
	put(50)
	want("before Flush", 0, 0)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want("after Flush", 1, 150)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want("after another Flush", 1, 150)

	record := 5 + 16<<10 + 17
	for range 7 {
		put(record)
	}
	want("after seven records", 1, 150)
	put(record)
	want("after eight records", 2, 150+8*record)
	put(1)
	want("after a byte more", 2, 150+8*record)
	put(1 << 20)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, got := c.seen(); got != 150+8*record+1+1<<20 {
		t.Errorf("%d bytes were written, want %d", got, 150+8*record+1+1<<20)
	}
}

func TestWireReadSendsWhatWasHeldBack(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		w := NewWire(s, NewBuffers())
		answered := begin(func() (int, error) {
			b := make([]byte, 64)
			n, err := peer.Read(b)
			if err != nil {
				return n, err
			}
			_, err = peer.Write([]byte{23, 3, 3, 0, 2, 'o', 'k'})
			return n, err
		})
		for _, part := range []string{"one ", "two"} {
			if _, err := w.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 64)
		r := soon(t, "Read", begin(func() (int, error) { return w.Read(b) }))
		if got := string(b[:r.n]); got != "\x17\x03\x03\x00\x02ok" || r.err != nil {
			t.Errorf("Read = %q, %v", got, r.err)
		}
		if r := soon(t, "the peer", answered); r.n != len("one two") || r.err != nil {
			t.Errorf("the peer read %d bytes at once, %v; want %d", r.n, r.err, len("one two"))
		}
	})
}

func TestWireApartLeavesFlushingToTheWriter(t *testing.T) {
	w, c := newCounted(t)
	w.Apart(true)
	if _, err := w.Write([]byte("held")); err != nil {
		t.Fatal(err)
	}
	w.socket.InterruptRead()
	if _, err := w.Read(make([]byte, 8)); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Read = %v, want %v", err, ErrInterrupted)
	}
	if writes, _ := c.seen(); writes != 0 {
		t.Errorf("Read made %d writes while apart, want 0", writes)
	}
	w.Apart(false)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if writes, _ := c.seen(); writes != 1 {
		t.Errorf("%d writes after Flush, want 1", writes)
	}
}

func TestWireReturnsARecordAtATime(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		w := NewWire(s, NewBuffers())
		// The last is larger than any that TLS permits, and than the buffer.
		sizes := []int{0, 1, 2, 4, 5, 6, 512, 16 << 10, 16<<10 + 256, 1, 65535, 3}
		var all []byte
		for i, n := range sizes {
			all = append(all, 23, 3, 3, byte(n>>8), byte(n))
			all = append(all, bytes.Repeat([]byte{byte(i)}, n)...)
		}
		write(t, peer, all)
		b := make([]byte, 1<<20)
		for i, n := range sizes {
			for have := 0; have < n+recordHeader; {
				r := soon(t, "Read", begin(func() (int, error) { return w.Read(b) }))
				if have += r.n; r.err != nil || r.n == 0 || have > n+recordHeader {
					t.Fatalf("record %d: Read = %d, %v with %d bytes of %d", i, r.n, r.err, have, n+recordHeader)
				}
				if r.n > recordHeader && b[r.n-1] != byte(i) {
					t.Fatalf("record %d: ends with byte %d", i, b[r.n-1])
				}
			}
		}
		if w.Ready() || w.Buffered() {
			t.Errorf("at the end Ready() = %v, Buffered() = %v; want false, false", w.Ready(), w.Buffered())
		}
	})
}

func TestWireReadyIsAWholeRecord(t *testing.T) {
	ours, theirs := tcpPair(t)
	defer ours.Close()
	defer theirs.Close()
	w := NewWire(NewSocket(ours), NewBuffers())
	// Two records, the second one byte short.
	if _, err := theirs.Write([]byte{23, 3, 3, 0, 2, 'a', 'b', 23, 3, 3, 0, 3, 'c', 'd'}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both records", func() bool { return unreadBytes(t, ours) == 14 })
	if w.Ready() || w.Buffered() {
		t.Errorf("before any read Ready() = %v, Buffered() = %v; want false, false", w.Ready(), w.Buffered())
	}
	b := make([]byte, 4)
	if n, err := w.Read(b); n != 4 || err != nil {
		t.Fatalf("Read = %d, %v; want 4, nil", n, err)
	}
	if !w.Ready() {
		t.Error("Ready() = false with the rest of a record")
	}
	if n, err := w.Read(b); n != 3 || err != nil {
		t.Fatalf("Read = %d, %v; want 3, nil", n, err)
	}
	if w.Ready() || !w.Buffered() {
		t.Errorf("with a part of a record Ready() = %v, Buffered() = %v; want false, true", w.Ready(), w.Buffered())
	}
	w.Instant(true)
	if n, err := w.Read(make([]byte, 16)); n != 7 || err != nil {
		t.Fatalf("Read = %d, %v; want 7, nil", n, err)
	}
	if n, err := w.Read(b); n != 0 || err != ErrWouldBlock { // crypto/tls asserts its type
		t.Errorf("Read = %d, %v; want 0, %v", n, err, ErrWouldBlock)
	}
	w.Instant(false)
	if _, err := theirs.Write([]byte{'e'}); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Read(b); n != 1 || err != nil {
		t.Errorf("Read = %d, %v; want 1, nil", n, err)
	}
}

func TestWireReportsABrokenConnection(t *testing.T) {
	each(t, func(t *testing.T, s *Socket, peer net.Conn, _ network) {
		w := NewWire(s, NewBuffers())
		peer.Close()
		eventually(t, "an error of Flush", func() bool {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			err := w.Flush()
			return err != nil
		})
		if _, err := w.Write(make([]byte, 1<<20)); err == nil {
			t.Error("Write of more than can be held back = nil, want an error")
		}
	})
}

func TestBuffersComeBackWhole(t *testing.T) {
	p := NewBuffers()
	p.Put(nil)
	for name, lend := range map[string]func() *Buffer{"Small": p.Small, "Large": p.Large} {
		want := len(lend().B)
		b := lend()
		b.B = b.B[:3]
		p.Put(b)
		for range 3 {
			if got := lend(); len(got.B) != want {
				t.Errorf("%s lends %d bytes, want %d", name, len(got.B), want)
			}
		}
	}
	// What grew, or was made for somebody, stays out.
	p.Put(&Buffer{B: make([]byte, SmallBuffer+1)})
	p.Put(&Buffer{B: make([]byte, LargeBuffer+1)})
	if got := len(p.Small().B); got < SmallBuffer || got >= LargeBuffer {
		t.Errorf("Small lends %d bytes", got)
	}
	if got := len(p.Large().B); got < LargeBuffer {
		t.Errorf("Large lends %d bytes", got)
	}
}

func TestLargeBuffersAreBounded(t *testing.T) {
	p := NewBuffers()
	var lent []*Buffer
	for range MostLarge {
		b := p.Large()
		if b == nil {
			t.Fatalf("Large() = nil with %d lent", p.Lent())
		}
		lent = append(lent, b)
	}
	if !p.Scarce() {
		t.Error("with all lent they are not scarce")
	}
	if p.Large() != nil || p.Lent() != MostLarge {
		t.Errorf("Large() lent one more than MostLarge; Lent() = %d", p.Lent())
	}
	if b := p.AtLeast(LargeBuffer); b == nil || len(b.B) < LargeBuffer {
		t.Error("AtLeast lent too little")
	} else {
		p.Put(b) // it is not one of those that are counted
	}
	lent[0].B = append(lent[0].B, 1) // grown, it is counted all the same
	for _, b := range lent {
		p.Put(b)
	}
	if n := p.Lent(); n != 0 || p.Scarce() {
		t.Errorf("Lent() = %d after all came back", n)
	}
	if n := len(p.AtLeast(SmallBuffer + 1).B); n != LargeBuffer {
		t.Errorf("AtLeast(more than a small one) lent %d bytes", n)
	}
	if n := len(p.AtLeast(LargeBuffer + 1).B); n <= LargeBuffer {
		t.Errorf("AtLeast(more than a large one) lent %d bytes", n)
	}
}
