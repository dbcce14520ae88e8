package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// Conn is a connection to an Endpoint. It belongs to one exchange between Dial or Take and Keep or Close.
type Conn struct {
	e       *Endpoint
	socket  *conn.Socket
	wire    *conn.Wire
	tls     *tls.Conn
	resumed bool
	reused  bool
	brimful bool // the last Read left no room: crypto/tls may hold more of that record

	mark uint64 // what the wire had sent when the exchange began

	asked    bool // the server asked for our certificate
	unlisted bool // and its list of acceptable authorities had no issuer of ours

	born   time.Time
	since  time.Time // idle since then
	until  time.Time // the upstream keeps it to then; zero: it did not say
	looked time.Time // when a sweep last asked whether the upstream has closed it; belongs to Endpoint.mu

	owner    uint64    // see Reserve
	ready    time.Time // zero: it is for any exchange at once
	reserved bool      // see Reserved
}

// Reused reports whether an exchange before this one used the connection.
func (c *Conn) Reused() bool { return c.reused }

// Write takes bytes for the upstream. They leave when much has gathered, with Flush, or when Read has to wait.
func (c *Conn) Write(b []byte) (int, error) { return c.tls.Write(b) }

// Flush sends what Write took.
func (c *Conn) Flush() error { return c.wire.Flush() }

// Read waits for bytes of the upstream. io.EOF is an end that the upstream announced; any other end is
// conn.ErrTruncated.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.tls.Read(b)
	c.brimful = n == len(b)
	return n, err
}

// Await waits until Read has something to return, or an error, so that the caller needs no memory before: nearly always,
// as what comes may turn out to be of TLS alone.
func (c *Conn) Await() {
	if !c.brimful {
		c.wire.Await()
	}
}

// Unsent reports whether nothing of what Write took has left since Take or Dial: the upstream has certainly not acted on
// it. Nobody writes meanwhile.
func (c *Conn) Unsent() bool { return c.wire.Sent() == c.mark }

// Expect tells that the upstream has at least left bytes more to send; see conn.Socket.Expect.
func (c *Conn) Expect(left int64) { c.socket.Expect(left) }

// Ready reports whether Read would return something at once that was read ahead.
func (c *Conn) Ready() bool { return c.wire.Ready() }

// Endpoint is where the connection leads to.
func (c *Conn) Endpoint() *Endpoint { return c.e }

// Upstream is whom the connection leads to.
func (c *Conn) Upstream() *Upstream { return c.e.up }

// ReadMore fills b with what has arrived already, and does not wait.
func (c *Conn) ReadMore(b []byte) (n int, err error) {
	c.wire.Instant(true)
	defer c.wire.Instant(false)
	for n < len(b) && c.wire.Ready() {
		m, err := c.Read(b[n:])
		n += m
		if errors.Is(err, conn.ErrWouldBlock) {
			break // what was ready was TLS's own business
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Apart tells that Write and Flush are called by another goroutine than Read, or no longer.
func (c *Conn) Apart(on bool) { c.wire.Apart(on) }

// CloseWrite tells the upstream that no more will be sent.
func (c *Conn) CloseWrite() error {
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	return c.wire.Flush()
}

// Interrupt ends every wait for the upstream, now and later, with conn.ErrInterrupted. Anyone may call it.
func (c *Conn) Interrupt() { c.socket.Interrupt() }

// Nudge makes a wait for bytes look once more. Anyone may call it.
func (c *Conn) Nudge() { c.socket.Nudge() }

// Gone reports whether the upstream has closed its side; see conn.Socket.PeerGone.
func (c *Conn) Gone() bool { return c.socket.PeerGone() }

// Calls is what the connection has cost so far; see conn.Socket.Calls.
func (c *Conn) Calls() conn.Calls { return c.socket.Calls() }

// WriteBlocked reports whether a write waits for the upstream to read. Anyone may call it.
func (c *Conn) WriteBlocked() bool { return c.socket.WriteBlocked() }

// Fault says what err, which came up in phase p, means, and adds what we know of our own certificate.
func (c *Conn) Fault(p fault.Phase, err error) *fault.Fault {
	f := fault.Classify(p, err)
	switch f.Token {
	case fault.ClientCertificateRejected, fault.ClientCAUnknown, fault.ClientCertificateRequired:
	case fault.TLSAlert:
		if !c.asked && !c.resumed {
			return f // the server did not get as far as our certificate
		}
	default:
		return f
	}
	now, id := time.Now(), c.e.o.Identity
	switch {
	case now.After(id.NotAfter):
		return fault.New(fault.ClientCertificateExpired, fmt.Errorf("identity %q, serial %s, expired at %s: %w",
			id.Name, id.Serial, id.NotAfter.UTC().Format(time.RFC3339), err))
	case now.Before(id.NotBefore):
		return fault.New(fault.ClientCertificateNotYetValid, fmt.Errorf("identity %q, serial %s, is not valid before %s: %w",
			id.Name, id.Serial, id.NotBefore.UTC().Format(time.RFC3339), err))
	case c.unlisted:
		f = f.WithDetail("The upstream refused our client certificate, and none of the authorities that it says it accepts has issued it.")
		f.Err = fmt.Errorf("identity %q, serial %s, was issued by %q, which is not among the authorities that the server accepts: %w",
			id.Name, id.Serial, id.Issuer, err)
	}
	return f
}

// Close ends a connection that is not to be kept. Nobody reads or writes any more.
func (c *Conn) Close(why metrics.CloseReason) {
	c.e.up.active.Add(-1)
	c.close(why)
}

// close is for connections that no exchange has.
func (c *Conn) close(why metrics.CloseReason) {
	c.wire.Alone()
	_ = c.tls.Close()
	c.wire.Rest()
	c.e.o.Metrics.ConnClosed(why)
	if c.e.up.isVerbose() {
		c.e.up.tellVerbosely(Event{Kind: ConnClosed, Endpoint: c.e.id, Why: why, For: time.Since(c.born)})
	}
}
