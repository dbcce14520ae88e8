package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// guard keeps web pages from borrowing our certificate. On loopback every browser on this host is a caller, and any page
// can make it send requests; where it can not, as on Unix sockets, there is nothing to guard.
func (x *session) guard(snap *snapshot.Snapshot, l *snapshot.Listener, r *http1.Request) *fault.Fault {
	if !x.loopback {
		return nil
	}
	// A page whose own name was made to resolve to 127.0.0.1 is of the same origin as we are, for its browser. Its name
	// gives it away.
	if len(r.Host) > 0 && !bytes.Equal(r.Host, x.allowed) { // a caller asks for one host, as a rule
		if !x.allowsHost(snap, l, r.Host) {
			return fault.New(fault.HostNotAllowed, fmt.Errorf("the host asked for is %q", r.Host))
		}
		x.allowed = append(x.allowed[:0], r.Host...)
	}
	if !l.Guarded {
		return nil
	}
	switch {
	case r.SecFetchSite != nil && string(r.SecFetchSite) != "none" && string(r.SecFetchSite) != "same-origin":
		return fault.New(fault.BrowserRequestDenied, errors.New("Sec-Fetch-Site names another site"))
	case r.AccessControlRequestMethod != nil:
		return fault.New(fault.BrowserRequestDenied, errors.New("a CORS preflight"))
	case r.Origin != nil && !sameOrigin(r.Origin, r.Host):
		return fault.New(fault.BrowserRequestDenied, errors.New("a foreign Origin"))
	}
	return nil
}

func (x *session) allowsHost(snap *snapshot.Snapshot, l *snapshot.Listener, host []byte) bool {
	name := host
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && host[len(host)-1] != ']' {
		name = host[:i]
	}
	if l.AllowsHost(name) {
		return true
	}
	lower := bytes.ToLower(name)
	return l.AllowsHost(bytes.TrimSuffix(lower, []byte("."))) || snap.Table.NamesHost(l.Name, host)
}

// sameOrigin reports whether origin is that of a page that we sent.
func sameOrigin(origin, host []byte) bool {
	rest, ok := bytes.CutPrefix(origin, []byte("http://"))
	return ok && bytes.EqualFold(rest, host)
}

// isLoopback reports whether a is an address that this host reaches by itself only.
func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
