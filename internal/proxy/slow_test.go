package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// many is more transfers than there are large buffers.
const many = conn.MostLarge + 16

// slow returns a caller for whom the kernel holds little.
func (k *kit) slow() *caller {
	k.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			k.must(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096))
		})
	}}
	c, err := d.Dial("tcp", k.address)
	k.must(err)
	k.must(c.SetDeadline(time.Now().Add(patience)))
	k.Cleanup(func() { _ = c.Close() })
	return &caller{Conn: c, k: k}
}

// stuck waits until that many sessions wait for their peer to read.
func (k *kit) stuck(n int, is func(*session) bool) {
	k.Helper()
	k.until(fmt.Sprintf("%d transfers wait for their peer", n), func() bool {
		k.server.mu.Lock()
		defer k.server.mu.Unlock()
		found := 0
		for x := range k.server.sessions {
			if is(x) {
				found++
			}
		}
		return found == n
	})
}

func (k *kit) bounded() {
	k.Helper()
	n := k.store.Current().Buffers().Lent()
	if n > conn.MostLarge {
		k.Errorf("%d large buffers are lent for %d stuck transfers, more than %d", n, many, conn.MostLarge)
	}
	if n == 0 {
		k.Error("no large buffer is lent: the transfers are not what this test is about")
	}
}

// However many callers do not read their large responses, and one who does still gets his.
func TestSlowDownloadsHoldABoundedNumberOfBuffers(t *testing.T) {
	for _, path := range []string{"/bytes?n=4000000", "/unsized"} {
		t.Run(path, func(t *testing.T) {
			const size = 4_000_000
			k := start(t, setup{
				config: fmt.Sprintf("[limits]\nmax_concurrent_requests = %d\n", many+1), timeout: `tunnel_idle = "1h"`,
				upstream: demo.UpstreamOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/bytes" {
						w.Header().Set("Content-Length", fmt.Sprint(size))
					}
					block := make([]byte, 100_000)
					for range size / len(block) {
						if _, err := w.Write(block); err != nil {
							return
						}
					}
				})},
			})
			for range many {
				k.slow().send(get(path))
			}
			k.stuck(many, func(x *session) bool { return x.socket.WriteBlocked() })
			k.bounded()
			if a := k.dial().send(get(path)).answer(); a.err != nil || len(a.text) != size {
				t.Errorf("a caller who reads got %d bytes and %v, want %d", len(a.text), a.err, size)
			}
		})
	}
}

// However many upstreams do not read the large requests they get.
func TestSlowUploadsHoldABoundedNumberOfBuffers(t *testing.T) {
	for _, framing := range []string{"Content-Length: 90000000", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			release := make(chan struct{})
			k := start(t, setup{
				config: fmt.Sprintf("[limits]\nmax_concurrent_requests = %d\nmax_request_body = \"100MB\"\n", many), timeout: `tunnel_idle = "1h"`,
				upstream: script(func(c *demo.Conn) {
					if _, err := c.Conn.Read(make([]byte, 100)); err == nil {
						<-release
					}
				}),
			})
			var senders sync.WaitGroup
			defer senders.Wait()
			var callers []*caller
			defer func() {
				for _, c := range callers {
					_ = c.Close()
				}
				close(release)
			}()
			for range many {
				c := k.slow().send("POST / HTTP/1.1\r\nHost: localhost\r\n" + framing + "\r\n\r\n")
				callers = append(callers, c)
				senders.Go(func() { // to its end, which is that of the connection
					block := make([]byte, 1<<20)
					if framing != "Content-Length: 90000000" {
						_, _ = io.WriteString(c.Conn, "4000000\r\n")
					}
					for {
						if _, err := c.Write(block); err != nil {
							return
						}
					}
				})
			}
			k.stuck(many, func(x *session) bool { up := x.up.Load(); return up != nil && up.WriteBlocked() })
			k.bounded()
		})
	}
}
