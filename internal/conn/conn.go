// Package conn carries bytes: one socket on the runtime's poller, read and written without a system call too many, and
// the wire that TLS runs on.
package conn

import (
	"errors"
	"fmt"
	"io"
)

// ErrWouldBlock says that nothing can be read now.
var ErrWouldBlock error = wouldBlock{}

// wouldBlock is temporary in the sense of net.Error: crypto/tls goes on after it as if nothing had happened.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read yet" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// ErrTruncated says that the peer ended a TLS connection without saying so in TLS (close_notify, RFC 8446 section 6.1).
// Whatever it sent may have been longer.
var ErrTruncated = fmt.Errorf("the connection ended without close_notify: %w", io.ErrUnexpectedEOF)

// ErrInterrupted says that Interrupt or InterruptRead ended a wait. Whoever interrupted knows why.
var ErrInterrupted = errors.New("interrupted")
