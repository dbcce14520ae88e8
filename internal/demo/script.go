package demo

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Conn is one client's connection, for a Script: whatever bytes at whatever
// time. Read it through ReadHead and ReadRequest or through Reader; reading the
// tls.Conn beside these loses what they have buffered.
type Conn struct {
	*tls.Conn
	Number int // 1 for the first connection to the upstream

	raw      *net.TCPConn
	upstream *Upstream
	r        *bufio.Reader
	hijacked bool // guarded by upstream.mu
}

// Reader returns the buffered reader of the connection.
func (c *Conn) Reader() *bufio.Reader {
	if c.r == nil {
		c.r = bufio.NewReader(c.Conn)
	}
	return c.r
}

// ReadHead returns the next request's head as it came, its empty line included.
func (c *Conn) ReadHead() (string, error) {
	var head strings.Builder
	for {
		line, err := c.Reader().ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// ReadRequest reads a request. Its body is read by the script, or not.
func (c *Conn) ReadRequest() (*http.Request, error) { return http.ReadRequest(c.Reader()) }

// WriteString writes s, as one TLS record when it is small enough.
func (c *Conn) WriteString(s string) (int, error) { return io.WriteString(c.Conn, s) }

// Answer reads requests with their bodies and writes answer, literally, after
// each, until the client closes.
func (c *Conn) Answer(answer string) {
	for {
		req, err := c.ReadRequest()
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if _, err := c.WriteString(answer); err != nil {
			return
		}
	}
}

// Truncate ends the connection without close_notify, as an attacker on the way would.
func (c *Conn) Truncate() error { return c.raw.Close() }

// Reset ends the connection with a TCP reset.
func (c *Conn) Reset() error {
	if err := c.raw.SetLinger(0); err != nil {
		return err
	}
	return c.raw.Close()
}

// WritePlain writes b past TLS.
func (c *Conn) WritePlain(b []byte) (int, error) { return c.raw.Write(b) }

// Done is closed when the upstream is; a script that waits for anything else
// waits for this too.
func (c *Conn) Done() <-chan struct{} { return c.upstream.done }

// Wait lets d pass and reports whether the upstream still runs then.
func (c *Conn) Wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.upstream.done:
		return false
	}
}

// WaitClosed blocks until the client has closed or cut the connection, or the
// upstream is closed. What the client sends until then is thrown away.
func (c *Conn) WaitClosed() { _, _ = io.Copy(io.Discard, c.Reader()) }
