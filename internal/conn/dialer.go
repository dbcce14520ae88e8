package conn

import (
	"net"
	"net/netip"
)

// Dialer returns a dialer whose connections leave from that address of this host; the zero Addr leaves the choice to the
// system.
//
// The port is chosen when a connection is made, and not before it is known where to. So ports run out for each server by
// itself, and not for all of them together.
func Dialer(from netip.Addr) net.Dialer {
	if !from.IsValid() {
		return net.Dialer{}
	}
	return net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Control: bindLate}
}
