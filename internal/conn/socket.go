package conn

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is one stream socket. One goroutine may read and another write at a time; Close, Interrupt, Interrupted,
// InterruptRead, Nudge, WriteBlocked, PeerEnd and PeerGone are safe for concurrent use.
//
// On Linux it makes raw system calls on the non-blocking descriptor while it holds the runtime's poller, so that a wait
// costs no second read and the runtime's monitor does not take every read for a system call that might block. The race
// detector does not see such calls; under it, and elsewhere, a Socket goes through net.Conn.
type Socket struct {
	// What each exchange touches comes first, and lies together.
	in     syscall.RawConn // what to read with: raw, or the poller's own below it; belongs to whoever reads
	lazy   lazyConn        // what makes raw the poller's; nil once it has
	inside bool            // a step of Run is in progress: the descriptor is held, by its goroutine
	held   uintptr
	run    struct {
		step func() (done bool)
		call func(uintptr) bool
	}
	interrupted atomic.Bool // reads end for good
	closed      atomic.Bool
	blocked     atomic.Bool // a write waits for the peer to read
	parked      bool        // it has been in the Lot: belongs to whoever calls Park
	calls       Calls
	read        struct {
		out    []byte // what is still to be sent
		in     []byte // where to put what comes; nil before that is known
		talker talker
		n      int
		sent   error // why out could not be sent
		err    error
		call   func(uintptr) bool
	}
	mark mark

	raw   syscall.RawConn // nil where net.Conn does all the work
	net   net.Conn
	fd    syscall.RawConn // for looking at the descriptor; nil when there is none, as with net.Pipe
	write struct {
		out  []byte
		n    int
		err  error
		call func(uintptr) bool
	}
	now struct {
		in   []byte
		n    int
		err  error
		call func(uintptr)
	}
	look struct {
		mu   sync.Mutex // guards end
		end  End
		call func(uintptr)
	}
	peek struct {
		readable bool
		call     func(uintptr)
	}
}

// Calls counts the system calls of a Socket that were to move bytes. It is 0 where the Socket goes through net.Conn.
type Calls struct {
	Reads  int
	Vain   int // of these, found nothing
	Writes int // without last words
}

// NewSocket returns a Socket that owns c.
func NewSocket(c net.Conn) *Socket { return newSocket(c, rawByDefault) }

func newSocket(c net.Conn, raw bool) *Socket {
	s := &Socket{net: c}
	if sc, ok := c.(syscall.Conn); ok {
		if fd, err := sc.SyscallConn(); err == nil {
			s.fd = fd
			if raw {
				s.raw = fd
			}
		}
	}
	s.in = s.raw
	s.lazy, _ = s.raw.(lazyConn)
	s.run.call = s.runStep
	s.read.call = s.readStep
	s.write.call = s.writeStep
	s.now.call = s.nowStep
	s.look.call = s.lookStep
	s.peek.call = s.peekStep
	s.mark.call, s.mark.again = s.markStep, math.MaxInt64
	return s
}

// lazyConn is a RawConn that the runtime's poller learns of later.
type lazyConn interface {
	syscall.RawConn
	// ofPoller is the RawConn of the poller, once that knows.
	ofPoller() (raw syscall.RawConn, ok bool)
}

// reader is what to read with. It spares each wait a detour.
func (s *Socket) reader() syscall.RawConn {
	if s.lazy != nil {
		if raw, ok := s.lazy.ofPoller(); ok {
			s.in, s.lazy = raw, nil
		}
	}
	return s.in
}

// RemoteAddr is the peer's address.
func (s *Socket) RemoteAddr() net.Addr { return s.net.RemoteAddr() }

// LocalAddr is our address.
func (s *Socket) LocalAddr() net.Addr { return s.net.LocalAddr() }

// SyscallConn gives access to the descriptor, to ask the kernel about it. Nothing is to be read or written there.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if s.fd == nil {
		return nil, errors.ErrUnsupported
	}
	return s.fd, nil
}

// Run calls step whenever there may be something to read, until it returns true or the wait for bytes fails. It calls
// it at once: bytes that came before Run do not announce themselves again. For the same reason step reads until a read
// comes back short or with ErrWouldBlock before it returns false.
//
// step reads with TryRead and may Write. It must not call Run or Read on this Socket.
func (s *Socket) Run(step func() (done bool)) error {
	if s.in == nil {
		for !step() {
			if s.interrupted.Load() {
				return ErrInterrupted
			}
		}
		return nil
	}
	s.run.step = step
	for {
		err := s.reader().Read(s.run.call)
		if err == nil || !s.spurious(err) {
			return s.waitError(err)
		}
	}
}

func (s *Socket) runStep(fd uintptr) bool {
	s.inside, s.held = true, fd
	done := s.run.step()
	s.inside = false
	return done
}

// TryRead reads what is there. With nothing there it returns ErrWouldBlock, or waits where the Socket goes through
// net.Conn. Only a step of Run may call it.
func (s *Socket) TryRead(b []byte) (int, error) {
	if s.in == nil {
		return s.Read(b)
	}
	if s.interrupted.Load() {
		return 0, ErrInterrupted
	}
	return s.readNow(s.held, b)
}

// ReadNow is TryRead for everybody else. It never waits, but then needs a system call more. Interrupt does not concern it.
// Where there is no descriptor to ask it waits for a moment, as a deadline in the past reads nothing.
func (s *Socket) ReadNow(b []byte) (int, error) {
	if s.fd == nil || !descriptors {
		return s.readBriefly(b)
	}
	r := &s.now
	r.in, r.n, r.err = b, 0, nil
	if err := s.fd.Control(r.call); err != nil {
		r.err = s.waitError(err)
	}
	r.in = nil
	return r.n, r.err
}

func (s *Socket) nowStep(fd uintptr) { s.now.n, s.now.err = s.readNow(fd, s.now.in) }

func (s *Socket) readBriefly(b []byte) (int, error) {
	_ = s.net.SetReadDeadline(time.Now().Add(time.Millisecond))
	n, err := s.net.Read(b)
	s.rearm()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrWouldBlock
	}
	return n, err
}

// Read waits for bytes and reads them.
func (s *Socket) Read(b []byte) (int, error) { return s.receive(b) }

// talker is whose bytes sendReceive moves. It is called before that returns, by its goroutine.
type talker interface {
	// wrote tells that the memory of what was to be sent is not needed any more, n bytes of which left.
	wrote(n int)

	// room is where to put what the peer sent. Where the Socket makes raw system calls, it is asked for when there may be
	// something, and unused tells that there was nothing: so nobody needs memory while he waits.
	room() []byte
	unused()
}

// sendReceive writes out, if there is any, and waits for bytes of the peer. It is meant for a peer that has nothing to
// say until it saw out: then the wait needs no read that finds nothing.
//
// When out cannot be written whole, what the peer sent before it hung up is still read: a reason may be in it.
// Otherwise the error is that of the write.
func (s *Socket) sendReceive(out []byte, t talker) (int, error) {
	r := &s.read
	r.out, r.talker = out, t
	n, err := s.receive(nil)
	if len(r.out) > 0 { // the wait was over before it began
		t.wrote(0)
	}
	r.out, r.talker = nil, nil
	return n, err
}

// receive is sendReceive with memory that is there already, or with that of read.talker.
func (s *Socket) receive(in []byte) (int, error) {
	if s.in == nil {
		return s.receiveByNet(in)
	}
	if s.mark.set {
		s.boundWait()
	}
	r := &s.read
	r.in, r.n, r.sent, r.err = in, 0, nil, nil
	for {
		err := s.reader().Read(r.call)
		if err == nil {
			break
		}
		if !s.spurious(err) {
			r.err = s.waitError(err)
			break
		}
	}
	r.in = nil
	if r.err != nil && r.sent != nil {
		return r.n, r.sent
	}
	return r.n, r.err
}

func (s *Socket) readStep(fd uintptr) bool {
	r := &s.read
	if len(r.out) > 0 {
		n, err := s.writeNow(fd, r.out)
		whole := n == len(r.out)
		if rest := r.out[n:]; !whole && (err == nil || errors.Is(err, ErrWouldBlock)) {
			var m int
			m, err = s.Write(rest)
			n += m
		}
		r.out = nil
		r.talker.wrote(n)
		if whole {
			// The poller's readiness was reset before this write, so whatever answers it will be announced.
			return false
		}
		r.sent = err
	}
	if r.in == nil {
		r.in = r.talker.room()
	}
	r.n, r.err = s.readNow(fd, r.in)
	if r.err == nil || !errors.Is(r.err, ErrWouldBlock) || r.sent != nil {
		return true
	}
	if r.talker != nil {
		r.in = nil
		r.talker.unused()
	}
	return false
}

func (s *Socket) receiveByNet(in []byte) (int, error) {
	var sent error
	r := &s.read
	if len(r.out) > 0 {
		var n int
		n, sent = s.Write(r.out)
		r.out = nil
		r.talker.wrote(n)
		if sent != nil {
			_ = s.net.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		}
	}
	if in == nil {
		in = r.talker.room()
	}
	for {
		n, err := s.net.Read(in)
		if err == nil || sent == nil && s.spurious(err) {
			if err == nil {
				return n, nil
			}
			continue
		}
		if sent != nil {
			return n, sent
		}
		return n, s.waitError(err)
	}
}

// spurious tells a wait that Nudge or boundWait ended from others, and makes waits possible again, for the first byte.
func (s *Socket) spurious(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || s.closed.Load() {
		return false
	}
	if s.mark.set {
		s.missed()
	}
	return s.rearm()
}

// rearm takes the deadline of a Nudge or of boundWait back, and reports whether waits are possible again. An Interrupt may
// have set one in the same moment; then it stays set, as it is for later waits, too.
func (s *Socket) rearm() bool {
	if s.interrupted.Load() {
		_ = s.net.SetReadDeadline(past())
		return false
	}
	_ = s.net.SetReadDeadline(time.Time{})
	if s.interrupted.Load() {
		_ = s.net.SetReadDeadline(past())
		return false
	}
	return true
}

func (s *Socket) waitError(err error) error {
	if err != nil && s.interrupted.Load() {
		return ErrInterrupted
	}
	return s.closedError(err)
}

// closedError says that it was us who closed the socket, in one way for all kinds of connections.
func (s *Socket) closedError(err error) error {
	if err != nil && s.closed.Load() {
		return net.ErrClosed
	}
	return err
}

// Write writes all of b.
func (s *Socket) Write(b []byte) (int, error) {
	n := 0
	if s.inside { // and so there is raw
		var err error
		n, err = s.writeNow(s.held, b)
		if n == len(b) || err != nil && !errors.Is(err, ErrWouldBlock) {
			return n, err
		}
	}
	if s.raw == nil {
		return s.writeMarked(b)
	}
	w := &s.write
	w.out, w.n, w.err = b[n:], 0, nil
	err := s.raw.Write(w.call)
	s.blocked.Store(false)
	w.out = nil
	if err == nil {
		err = w.err
	}
	return n + w.n, s.writeError(err)
}

func (s *Socket) writeStep(fd uintptr) bool {
	w := &s.write
	for w.n < len(w.out) {
		n, err := s.writeNow(fd, w.out[w.n:])
		w.n += n
		if errors.Is(err, ErrWouldBlock) {
			s.blocked.Store(true)
			return false
		}
		if err != nil {
			w.err = err
			return true
		}
	}
	return true
}

func (s *Socket) writeMarked(b []byte) (int, error) {
	s.blocked.Store(true)
	n, err := s.net.Write(b)
	s.blocked.Store(false)
	return n, s.writeError(err)
}

// writeError keeps what a broken connection says, also after InterruptRead, which ends no write.
func (s *Socket) writeError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && s.interrupted.Load() {
		return ErrInterrupted
	}
	return s.closedError(err)
}

// writeOnce writes what the kernel takes now and forgets the rest: last words.
func (s *Socket) writeOnce(b []byte) {
	if s.raw == nil {
		_ = s.net.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = s.net.Write(b)
		return
	}
	_ = s.raw.Control(func(fd uintptr) { _, _ = writeNow(fd, b) })
}

// readNow counts. It belongs to the goroutine that reads.
func (s *Socket) readNow(fd uintptr, b []byte) (int, error) {
	n, err := readNow(fd, b)
	s.calls.Reads++
	if n == 0 && errors.Is(err, ErrWouldBlock) {
		s.calls.Vain++
	}
	return n, err
}

// writeNow counts. It belongs to the goroutine that writes.
func (s *Socket) writeNow(fd uintptr, b []byte) (int, error) {
	s.calls.Writes++
	return writeNow(fd, b)
}

// Calls is what there was so far. Nobody reads or writes meanwhile.
func (s *Socket) Calls() Calls { return s.calls }

// WriteBlocked reports whether a write waits for the peer to read.
func (s *Socket) WriteBlocked() bool { return s.blocked.Load() }

// Interrupt ends every wait, now and later, with ErrInterrupted.
func (s *Socket) Interrupt() {
	s.interrupted.Store(true)
	_ = s.net.SetDeadline(past())
}

// Interrupted reports whether Interrupt or InterruptRead was called, and Resume was not.
func (s *Socket) Interrupted() bool { return s.interrupted.Load() }

// InterruptRead ends waits for bytes only, so that there can be a last word. Resume takes it back.
func (s *Socket) InterruptRead() {
	s.interrupted.Store(true)
	_ = s.net.SetReadDeadline(past())
}

// Resume makes waits possible again after InterruptRead. The caller knows that nobody interrupts at the same time.
func (s *Socket) Resume() {
	s.interrupted.Store(false)
	_ = s.net.SetReadDeadline(time.Time{})
}

// Nudge makes a wait for bytes look once more, in case an announcement of theirs was lost.
func (s *Socket) Nudge() { _ = s.net.SetReadDeadline(past()) }

// past is any time that is over; zero would mean none.
func past() time.Time { return time.Unix(1, 0) }

// End is how much of a connection its peer has ended.
type End uint8

// The ends.
const (
	Open       End = iota
	HalfClosed     // the peer sends no more; over TCP this is also what a closed connection looks like, until we send something
	Closed         // it was reset, or is a closed Unix socket
)

// PeerEnd reports how much of the connection the peer has ended. Bytes sent before may still be there to be read.
func (s *Socket) PeerEnd() End {
	if s.fd == nil {
		return Open
	}
	s.look.mu.Lock()
	defer s.look.mu.Unlock()
	s.look.end = Open
	if s.fd.Control(s.look.call) != nil {
		return Open
	}
	return s.look.end
}

func (s *Socket) lookStep(fd uintptr) { s.look.end = peerEnd(fd) }

// PeerGone reports whether the peer will send no more.
func (s *Socket) PeerGone() bool { return s.PeerEnd() != Open }

// Readable reports whether a read would find something, if only the end of the connection. Where there is no descriptor to ask, it
// may be wrong in saying so. It belongs to the goroutine that reads.
func (s *Socket) Readable() bool {
	if s.fd == nil || !descriptors {
		return true
	}
	s.peek.readable = true
	if s.fd.Control(s.peek.call) != nil {
		return true
	}
	return s.peek.readable
}

func (s *Socket) peekStep(fd uintptr) { s.peek.readable = readable(fd) }

// CloseWrite tells the peer that we will send no more.
func (s *Socket) CloseWrite() error {
	half, ok := s.net.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("%T cannot be half closed", s.net)
	}
	return half.CloseWrite()
}

// Close closes the socket. What was written is still delivered.
func (s *Socket) Close() error {
	s.closed.Store(true)
	return s.net.Close()
}

// leaver is a connection that can be left.
type leaver interface {
	// leave closes the connection at once, and gives its descriptor's number back a little later.
	leave()
}

// Leave is Close by somebody who knows that nobody reads or writes, now or later. It is cheaper for what a Dialer opened or an
// Acceptor accepted.
func (s *Socket) Leave() error {
	l, ok := s.net.(leaver)
	if !ok {
		return s.Close()
	}
	l.leave()
	return nil
}

// Abort closes the socket in a way that the peer cannot take for a regular end: a TCP connection is reset.
func (s *Socket) Abort() error {
	if tcp, ok := s.net.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	return s.Close()
}

// Detach returns the connection itself, to somebody who goes on with it in another way. The Socket is not used any more.
func (s *Socket) Detach() net.Conn { return s.net }
