package upstream

import (
	"runtime"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// A connection that idles is to cost what TLS needs to know, and no room for bytes that nobody sends.
func TestKeptConnectionsHoldNoBuffers(t *testing.T) {
	w := newWorld(t)
	w.options.Pool.MaxIdle = 32
	w.o.Script = func(c *demo.Conn) { c.Answer(answer) }
	w.build(t)
	conns := make([]*Conn, 32)
	for i := range conns {
		conns[i] = w.dial(t)
		get(t, conns[i])
	}
	inUse := func() int {
		for range 3 { // what lies in a sync.Pool outlives one
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := inUse()
	for _, c := range conns {
		c.Keep(time.Now(), -1)
	}
	if freed := before - inUse(); freed < len(conns)*conn.SmallBuffer {
		t.Errorf("Keep freed %d bytes of each connection, want at least one buffer of %d", freed/len(conns), conn.SmallBuffer)
	}
}
