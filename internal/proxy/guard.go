package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// guard keeps web pages from borrowing our certificate. Every browser on this host is a caller, and any page can make it send requests, also
// to an address of this host other than loopback; where none can, as on Unix sockets, there is nothing to guard.
func (x *session) guard(snap *snapshot.Snapshot, l *snapshot.Listener, r *http1.Request) *fault.Fault {
	if !x.local {
		return nil
	}
	// A page whose own name was made to resolve to this host is of the same origin as we are, for its browser. Its name
	// gives it away.
	if len(r.Host) > 0 && !bytes.Equal(r.Host, x.allowed) { // a caller asks for one host, as a rule
		switch {
		case x.allowsHost(snap, l, r.Host):
			x.allowed = append(x.allowed[:0], r.Host...)
		case r.Form == http1.AbsoluteForm && l.NamesUpstream(hostName(r.Host)):
			// A program that takes us for its HTTP proxy; a browser that was deceived sends a path.
		default:
			return fault.New(fault.HostNotAllowed, fmt.Errorf("the host asked for is %q", r.Host))
		}
	}
	if !l.Guarded || r.Origin != nil && l.AllowsOrigin(bytes.ToLower(r.Origin)) {
		return nil
	}
	switch {
	case r.SecFetchSite != nil && string(r.SecFetchSite) != "none" && string(r.SecFetchSite) != "same-origin":
		return fault.New(fault.BrowserRequestDenied, errors.New("Sec-Fetch-Site names another site"))
	case r.AccessControlRequestMethod != nil:
		return fault.New(fault.BrowserRequestDenied, errors.New("a CORS preflight"))
	case r.Origin != nil && !sameOrigin(r.Origin, r.Host):
		return fault.New(fault.BrowserRequestDenied, errors.New("a foreign Origin, not among allowed_origins"))
	}
	return nil
}

// hostName is host in lower case, without its port and the dot of the root.
func hostName(host []byte) []byte {
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && host[len(host)-1] != ']' {
		host = host[:i]
	}
	return bytes.TrimSuffix(bytes.ToLower(host), []byte("."))
}

func (x *session) allowsHost(snap *snapshot.Snapshot, l *snapshot.Listener, host []byte) bool {
	name := hostName(host)
	return l.AllowsHost(name) || snap.Table.NamesHost(l.Name, host) || x.isOwnAddress(name)
}

// isOwnAddress reports whether host is the IP address that the caller has connected to. No DNS answer can change that.
func (x *session) isOwnAddress(host []byte) bool {
	tcp, ok := x.socket.LocalAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	ip, err := netip.ParseAddr(string(bytes.TrimSuffix(bytes.TrimPrefix(host, []byte("[")), []byte("]"))))
	return err == nil && ip.Unmap() == tcp.AddrPort().Addr().Unmap().WithZone("")
}

// sameOrigin reports whether origin is that of a page that we sent, or of a program that calls us and says so, as libraries for WebSocket do.
func sameOrigin(origin, host []byte) bool {
	for _, scheme := range [...]string{"http://", "ws://"} {
		if rest, ok := bytes.CutPrefix(origin, []byte(scheme)); ok {
			return bytes.EqualFold(bytes.TrimSuffix(rest, []byte(":80")), bytes.TrimSuffix(host, []byte(":80")))
		}
	}
	return false
}
