package caller

import (
	"net"
	"net/netip"
)

// IsHere reports whether a TCP connection with these ends may come from this host: over loopback, or from the address that it leads to,
// which the kernel chooses for the other addresses of this host. Whatever reaches a loopback address counts, redirected connections too.
func IsHere(remote, local net.Addr) bool {
	return isOurs(remote, local) || addressOf(local).IsLoopback()
}

// isOurs reports whether the other end of the connection is a socket of this host, which the kernel can be asked about.
func isOurs(remote, local net.Addr) bool {
	from := addressOf(remote)
	return from.IsValid() && (from.IsLoopback() || from == addressOf(local))
}

// Source is what tells callers over TCP apart that are not looked up: "this host", whose programs have as many addresses as they like, an
// IPv4 address, or the network of 64 bits that one customer of IPv6 has. It is "" for a Unix socket.
func Source(remote, local net.Addr) string {
	from := addressOf(remote)
	switch {
	case !from.IsValid():
		return ""
	case IsHere(remote, local):
		return "this host"
	case from.Is4():
		return from.String()
	}
	return netip.PrefixFrom(from, 64).Masked().String()
}

// addressOf returns the address without its zone, an IPv4 one as such; not valid for what is not TCP.
func addressOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return unmap(tcp.AddrPort()).Addr()
}
