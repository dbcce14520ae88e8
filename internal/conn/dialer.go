package conn

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// mostLeft is how many descriptors of connections that have been left wait for Sweep at most.
const mostLeft = 64

// Dialer opens TCP connections. On Linux it does so, and ends them, without telling the runtime of system calls that do not
// block: each would wake the runtime's monitor, which then looks every 20 µs whether one does. Where connections serve one
// exchange each, that is a fifteenth of all their CPU time.
//
// close(2) cannot be had in that way. So Socket.Leave shuts a connection down, and Sweep closes the descriptors of many.
type Dialer struct {
	net  net.Dialer // for whatever is left to it
	from netip.Addr

	mu      sync.Mutex // guards left and retired
	left    []io.Closer
	retired bool
}

// NewDialer returns a Dialer whose connections leave from that address of this host; the zero Addr leaves the choice to the
// system.
//
// The port is chosen when a connection is made, and not before it is known where to. So ports run out for each server by
// itself, and not for all of them together.
func NewDialer(from netip.Addr) *Dialer {
	d := &Dialer{from: from}
	if from.IsValid() {
		d.net.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		d.net.Control = bindLate
	}
	return d
}

// Dial opens a connection to address, host:port. It takes no longer than limit, unless that is 0, and ends when ctx does.
// Errors are those of net.Dialer.
func (d *Dialer) Dial(ctx context.Context, limit time.Duration, address string) (net.Conn, error) {
	if to, err := netip.ParseAddrPort(address); err == nil && rawByDefault && d.fits(to.Addr()) {
		return d.dialRaw(ctx, limit, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
	}
	nd := d.net
	nd.Timeout = limit
	return nd.DialContext(ctx, "tcp", address)
}

// fits reports whether dialRaw may be asked for a connection to that address. Zones have to be looked up, and net explains
// best why an address cannot be reached from another one.
func (d *Dialer) fits(to netip.Addr) bool {
	return to.Zone() == "" && (!d.from.IsValid() || d.from.Zone() == "" && d.from.Unmap().Is4() == to.Unmap().Is4())
}

// Sweep closes the descriptors of connections that have been left. Somebody calls it a few times a second.
func (d *Dialer) Sweep() { d.sweep(false) }

// Retire is a last Sweep: connections that are left from now on need none.
func (d *Dialer) Retire() { d.sweep(true) }

func (d *Dialer) sweep(last bool) {
	d.mu.Lock()
	left := d.left
	d.left = nil
	d.retired = d.retired || last
	d.mu.Unlock()
	for _, c := range left {
		_ = c.Close()
	}
}

// take takes a descriptor, to close it with others.
func (d *Dialer) take(descriptor io.Closer) {
	d.mu.Lock()
	d.left = append(d.left, descriptor)
	full := d.retired || len(d.left) >= mostLeft
	d.mu.Unlock()
	if full {
		d.Sweep()
	}
}
