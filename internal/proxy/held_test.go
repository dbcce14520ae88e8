package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// What an upstream sends after a pause in the middle of a long response reaches the caller, however little it is: it is not
// kept until there is more.
func TestALongResponseThatPausesIsNotHeldBack(t *testing.T) {
	parts := []int{1_500_000, 7, 2_000_000, 1, 70_000, 600_000}
	total := 0
	for _, n := range parts {
		total += n
	}
	arrived := make(chan struct{})
	k := start(t, setup{upstream: demo.UpstreamOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(total))
		for _, n := range parts {
			_, _ = io.WriteString(w, strings.Repeat("x", n))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-arrived:
			case <-r.Context().Done():
			}
		}
	})}})
	c := k.dial()
	for range 2 {
		a := c.send(get("/")).headTo(http.MethodGet)
		for i, n := range parts {
			if got, err := io.CopyN(io.Discard, a.Body, int64(n)); err != nil {
				t.Fatalf("of part %d, %d bytes, %d came: %v", i, n, got, err)
			}
			arrived <- struct{}{}
		}
	}
}
