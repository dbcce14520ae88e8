package conn

import (
	"io"
	"os"
	"sync"
	"syscall"
)

// mostLeft is how many descriptors wait for Sweep at most.
const mostLeft = 256

// Closer closes sockets that are left, see Socket.Leave, without telling the runtime of each: that would wake its monitor.
// It is ready for use as it is.
//
// An os.File cannot be closed in that way. So a descriptor that leads to a socket is made to lead to the null device, which
// closes the socket, and is closed later, together with others.
type Closer struct {
	mu      sync.Mutex // guards what follows
	left    []io.Closer
	null    *os.File        // the null device; nil before it is needed, and where it cannot be had
	raw     syscall.RawConn // that
	retired bool
}

// Sweep closes what is left of sockets. Somebody calls it a few times a second.
func (c *Closer) Sweep() {
	c.mu.Lock()
	left := c.left
	c.left = nil
	c.mu.Unlock()
	closeAll(left)
}

// Retire is a last Sweep: sockets that are left from now on are closed at once.
func (c *Closer) Retire() {
	c.mu.Lock()
	left := c.left
	if c.null != nil {
		left = append(left, c.null)
	}
	c.left, c.null, c.raw, c.retired = nil, nil, nil, true
	c.mu.Unlock()
	closeAll(left)
}

func closeAll(list []io.Closer) {
	for _, one := range list {
		_ = one.Close()
	}
}

// close closes a socket whose descriptor is d. lead makes that lead to where null leads.
func (c *Closer) close(d io.Closer, lead func(null uintptr) error) {
	led := false
	if null := c.device(); null != nil {
		_ = null.Control(func(fd uintptr) { led = lead(fd) == nil })
	}
	if !led {
		_ = d.Close()
		return
	}
	c.mu.Lock()
	c.left = append(c.left, d)
	full := c.retired || len(c.left) >= mostLeft
	c.mu.Unlock()
	if full {
		c.Sweep()
	}
}

// device is the null device, as long as it can be had. It stays open while a call of Control lasts.
func (c *Closer) device() syscall.RawConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.null == nil && !c.retired {
		if f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
			c.null = f
			c.raw, _ = f.SyscallConn()
		}
	}
	return c.raw
}
