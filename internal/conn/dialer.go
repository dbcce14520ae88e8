package conn

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Dialer opens TCP connections. On Linux it does so without telling the runtime of system calls that do not block: each would
// wake the runtime's monitor, which then looks every 20 µs whether one does. Where connections serve one exchange each, that
// is a tenth of all their CPU time.
//
// Its Closer closes the descriptors of those that are left.
type Dialer struct {
	Closer

	net  net.Dialer // for whatever is left to it
	from netip.Addr
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
