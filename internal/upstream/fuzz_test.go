package upstream

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// FuzzHandshake has a server say anything instead of its part of a handshake. Whatever that is, it is no mistake of ours.
func FuzzHandshake(f *testing.F) {
	for _, seed := range []string{
		"", "HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-x\r\n", "220 ready\r\n", "\x15\x03\x01\x00\x02\x02\x28", "\x15\x03\x01\x00\x02\x01\x00",
		"\x16\x03\x03\x00\x04\x02\x00\x00\x00", "\x16\x03\x03\x40\x01", "\x17\x03\x03\x00\x01x", "\x14\x03\x03\x00\x01\x01", "\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
		"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00\x13\x01\x00",
	} {
		f.Add([]byte(seed))
	}
	var says atomic.Pointer[[]byte]
	w := newWorld(f).buildAt(f, listen(f, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write(*says.Load())
		_ = c.(*net.TCPConn).CloseWrite()
		silence(c)
	}))
	f.Fuzz(func(t *testing.T, answer []byte) {
		says.Store(&answer)
		c, err := w.up.Dial(t.Context())
		if err == nil {
			c.Close(metrics.ClosedFault)
			t.Fatal("a handshake with bytes of chance")
		}
		fa, ok := errors.AsType[*fault.Fault](err)
		if !ok || fa.Token == fault.InternalError {
			t.Errorf("Dial = %v, want a fault that is not ours", err)
		}
	})
}

// FuzzCheckAnswer has a server answer health checks with anything.
func FuzzCheckAnswer(f *testing.F) {
	for _, seed := range []string{
		"", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Upgrade\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nmore", "HTTP/1.1 20 OK\r\n\r\n", "garbage", "HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	var says atomic.Pointer[[]byte]
	w := newWorld(f)
	w.o.Script = func(c *demo.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write(*says.Load())
	}
	w.options.Check = Check{Path: "/", Interval: time.Hour, Timeout: patience, Expect: []int{200}, UnhealthyAfter: 1, HealthyAfter: 1}
	w.build(f)
	f.Fuzz(func(t *testing.T, answer []byte) {
		says.Store(&answer)
		err := w.up.check(context.Background())
		if fa, ok := errors.AsType[*fault.Fault](err); ok && fa.Token == fault.InternalError {
			t.Errorf("check = %v, want a fault that is not ours", err)
		}
	})
}
