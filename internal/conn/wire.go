package conn

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Wire is the net.Conn below a tls.Conn. It reads ahead, so that a record and its header cost one read together, and
// it holds writes back until there is a reason to send: Read has nothing left to return, Flush is called, or much has
// gathered.
//
// It returns bytes of one record at a time. That way crypto/tls never has bytes of the next record, and Ready can tell
// whether there are any.
type Wire struct {
	socket  *Socket
	buffers *Buffers

	in   *Buffer // what was read ahead; nil when there is nothing
	r, w int     // in.B[r:w] is to be returned; both 0 when in is nil
	left int     // bytes of the current record that Read has not returned, its header included
	full bool    // the last read filled in: there is more than it holds

	failed error // what the next fill returns

	instant bool // Read returns ErrWouldBlock rather than wait
	apart   bool // another goroutine writes: Read does not flush
	alone   bool // nobody else uses the socket: Close leaves it

	closed atomic.Bool

	mu  sync.Mutex // guards out
	out *Buffer    // what is held back; nil when there is nothing
	n   int        // bytes in out

	sent uint64 // bytes that left; belongs to whoever writes
}

const recordHeader = 5

// flushAt is how much is gathered before it is sent: as many full records as fit a LargeBuffer.
const flushAt = 8 * (recordHeader + 16<<10 + 17)

// NewWire returns a Wire that owns s.
func NewWire(s *Socket, b *Buffers) *Wire { return &Wire{socket: s, buffers: b} }

// Read implements net.Conn. The end of the connection is ErrTruncated: a proper end is said in TLS.
func (w *Wire) Read(b []byte) (int, error) {
	for {
		if w.left == 0 && w.w-w.r >= recordHeader {
			w.left = recordHeader + (int(w.in.B[w.r+3])<<8 | int(w.in.B[w.r+4]))
		}
		if w.left > 0 && w.w > w.r {
			n := copy(b, w.in.B[w.r:min(w.w, w.r+w.left)])
			w.r += n
			w.left -= n
			return n, nil
		}
		if err := w.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = ErrTruncated
			}
			return 0, err
		}
	}
}

// Await waits until there is something for Read, as Read does, so that whoever calls it needs no memory before.
func (w *Wire) Await() {
	if w.w == w.r && w.failed == nil {
		w.failed = w.fill()
	}
}

// fill reads ahead, sending first what was held back.
func (w *Wire) fill() error {
	if err := w.failed; err != nil {
		w.failed = nil
		return err
	}
	switch {
	case w.in == nil:
	case w.r == w.w:
		w.r, w.w = 0, 0
		w.fit()
	case w.r > 0:
		// Less than a header, or the end of a record that did not fit: little to move.
		w.w = copy(w.in.B, w.in.B[w.r:w.w])
		w.r = 0
	}
	var (
		n   int
		err error
	)
	switch {
	case w.instant:
		n, err = w.socket.ReadNow(w.room())
	case w.apart:
		n, err = w.socket.sendReceive(nil, w)
	default:
		n, err = w.socket.sendReceive(w.held(), w)
	}
	w.w += n
	w.full = w.in != nil && w.w == len(w.in.B)
	if n > 0 {
		return nil
	}
	return err
}

// held is what is held back. It belongs to whoever writes.
func (w *Wire) held() []byte {
	if w.out == nil {
		return nil
	}
	return w.out.B[:w.n]
}

// wrote implements talker: what was held back has left, as far as it could.
func (w *Wire) wrote(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent += uint64(n)
	w.n = 0
	w.buffers.Put(w.out)
	w.out = nil
}

// room implements talker: it is behind what was read ahead.
func (w *Wire) room() []byte {
	if w.in == nil {
		w.in = w.buffers.Small()
	}
	return w.in.B[w.w:]
}

// unused implements talker: an empty buffer is not kept, unless much came last and there are enough of them.
func (w *Wire) unused() {
	if w.w == 0 && (len(w.in.B) < LargeBuffer || w.buffers.Scarce()) {
		w.buffers.Put(w.in)
		w.in = nil
	}
}

// fit gives the empty buffer in the size that is called for.
func (w *Wire) fit() {
	switch isLarge := len(w.in.B) >= LargeBuffer; {
	case w.full && !isLarge:
		if large := w.buffers.Large(); large != nil {
			w.buffers.Put(w.in)
			w.in = large
		}
	case isLarge && w.buffers.Scarce():
		w.buffers.Put(w.in)
		w.in = nil
	}
}

// Ready reports whether a whole record has been read ahead.
func (w *Wire) Ready() bool {
	n := w.w - w.r
	if w.left > 0 {
		return n >= w.left
	}
	return n >= recordHeader && n >= recordHeader+(int(w.in.B[w.r+3])<<8|int(w.in.B[w.r+4]))
}

// Buffered reports whether there are bytes that Read has not returned.
func (w *Wire) Buffered() bool { return w.w > w.r }

// Instant makes Read return ErrWouldBlock rather than wait, or wait again.
func (w *Wire) Instant(on bool) { w.instant = on }

// Apart tells that Write and Flush are called by another goroutine than Read, or no longer.
func (w *Wire) Apart(on bool) { w.apart = on }

// Alone tells that nobody but the caller, who is about to close it, uses the Wire or its Socket, now or later.
func (w *Wire) Alone() { w.alone = true }

// Write implements net.Conn.
func (w *Wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	written := 0
	for {
		w.makeRoom(len(b) - written)
		n := copy(w.out.B[w.n:], b[written:])
		w.n += n
		written += n
		if w.n >= flushAt || written < len(b) {
			if err := w.flush(); err != nil {
				return written, err
			}
		}
		if written == len(b) {
			return written, nil
		}
	}
}

// makeRoom sees to it that out exists, and is large, if possible, when n more bytes would not fit into a small one.
func (w *Wire) makeRoom(n int) {
	if w.out == nil {
		w.out = w.buffers.Small()
	}
	if w.n+n > len(w.out.B) && len(w.out.B) < LargeBuffer {
		large := w.buffers.Large()
		if large == nil {
			return
		}
		copy(large.B, w.out.B[:w.n])
		w.buffers.Put(w.out)
		w.out = large
	}
}

// Flush sends what was held back.
func (w *Wire) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *Wire) flush() error {
	if w.n == 0 {
		return nil
	}
	n, err := w.socket.Write(w.out.B[:w.n])
	w.sent += uint64(n)
	w.n = 0
	if len(w.out.B) >= LargeBuffer && w.buffers.Scarce() {
		w.buffers.Put(w.out)
		w.out = nil
	}
	return err
}

// Sent counts the bytes that left since the beginning. Nobody writes meanwhile.
func (w *Wire) Sent() uint64 { return w.sent }

// Rest gives memory back while the connection has nothing to do, or is closed. Nobody reads or writes meanwhile.
func (w *Wire) Rest() {
	closed := w.closed.Load()
	if w.in != nil && (w.r == w.w || closed) {
		w.buffers.Put(w.in)
		w.in, w.r, w.w, w.full = nil, 0, 0, false
	}
	if w.out != nil && (w.n == 0 || closed) {
		w.buffers.Put(w.out)
		w.out, w.n = nil, 0
	}
}

// Close sends what is held back if that is possible at once, and closes the socket. Memory goes back with Rest, once
// nobody reads or writes any more.
func (w *Wire) Close() error {
	w.closed.Store(true)
	if w.mu.TryLock() { // else someone is stuck in a write, and last words would be, too
		if w.n > 0 {
			w.socket.writeOnce(w.out.B[:w.n])
			w.n = 0
		}
		w.mu.Unlock()
	}
	if w.alone {
		return w.socket.Leave()
	}
	return w.socket.Close()
}

// LocalAddr implements net.Conn.
func (w *Wire) LocalAddr() net.Addr { return w.socket.LocalAddr() }

// RemoteAddr implements net.Conn.
func (w *Wire) RemoteAddr() net.Addr { return w.socket.RemoteAddr() }

// SetDeadline implements net.Conn and does nothing: waits are ended by Socket.Interrupt, from outside.
func (w *Wire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is as SetDeadline.
func (w *Wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is as SetDeadline.
func (w *Wire) SetWriteDeadline(time.Time) error { return nil }
