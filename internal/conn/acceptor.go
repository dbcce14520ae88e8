package conn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Acceptor accepts the connections of a listening socket, for one goroutine. It does so without telling the runtime, as a
// Dialer dials, and leaves it to whoever waits for a connection to tell the poller.
type Acceptor struct {
	ln  deadlined
	raw *rawAcceptor // nil where ln does the work
}

type deadlined interface {
	net.Listener
	SetDeadline(t time.Time) error
}

// NewAcceptor returns an Acceptor for ln, which stays the caller's, has to have deadlines, and is not to be closed before the
// Acceptor. What it accepts is closed by closer when it is left.
func NewAcceptor(ln net.Listener, closer *Closer) (*Acceptor, error) {
	timed, ok := ln.(deadlined)
	if !ok {
		return nil, fmt.Errorf("%T has no deadlines", ln)
	}
	a := &Acceptor{ln: timed}
	if rawByDefault {
		a.raw, _ = newRawAcceptor(ln, closer) // or ln does it: it has what it needs
	}
	return a, nil
}

// Accept waits for a connection, until the deadline. Errors are those of a net.Listener.
func (a *Acceptor) Accept() (net.Conn, error) {
	if a.raw == nil {
		return a.ln.Accept()
	}
	c, err := a.raw.accept()
	if err != nil {
		at := a.ln.Addr()
		return nil, &net.OpError{Op: "accept", Net: at.Network(), Addr: at, Err: err}
	}
	return c, nil
}

// AcceptNow accepts a connection that is there already. With none it returns ErrWouldBlock. The deadline does not concern it.
func (a *Acceptor) AcceptNow() (net.Conn, error) {
	if a.raw != nil {
		return a.raw.acceptNow()
	}
	if err := a.ln.SetDeadline(time.Now().Add(time.Millisecond)); err != nil { // one in the past accepts nothing
		return nil, err
	}
	c, err := a.ln.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrWouldBlock
	}
	return c, err
}

// SetDeadline ends waits, as that of a net.Listener.
func (a *Acceptor) SetDeadline(t time.Time) error {
	if a.raw == nil {
		return a.ln.SetDeadline(t)
	}
	return a.raw.file.SetReadDeadline(t)
}

// Close gives back what the Acceptor has of its own. Nobody accepts meanwhile. The listening socket stays open.
func (a *Acceptor) Close() error {
	if a.raw == nil {
		return nil
	}
	return a.raw.file.Close()
}
