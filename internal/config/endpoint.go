package config

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// Endpoint is one place at which an upstream is reached, as the configuration
// names it. Its name may stand for several addresses.
type Endpoint struct {
	URL        *url.URL
	Address    string // "host:port" for dialling
	ServerName string // sent as SNI, and the name that is verified; lower case, addresses without brackets
	Host       string // the Host field; empty to pass on the caller's
	Weight     int    // share of the requests, beside those of the others; at least 1
	Backup     bool   // used only while none of the others can be
}

// Endpoints are those that URL or URLs name, and then those of BackupURLs, in
// the order of the file. There are none for an upstream with SRV: DNS names its
// hosts and ports, which all have ServerName and HostField.
func (u *Upstream) Endpoints() []Endpoint {
	urls := u.places()
	list := make([]Endpoint, len(urls))
	for i, at := range urls {
		e := Endpoint{URL: at, Address: hostPort(at), ServerName: u.ServerName, Weight: u.weight(at), Backup: slices.Contains(u.BackupURLs, at)}
		if e.ServerName == "" {
			e.ServerName = hostOf(at)
		}
		e.Host = u.hostField(e.ServerName, at.Port())
		list[i] = e
	}
	return list
}

// places are all URLs of u.
func (u *Upstream) places() []*url.URL {
	if u.URL != nil {
		return append([]*url.URL{u.URL}, u.BackupURLs...)
	}
	return slices.Concat(u.URLs, u.BackupURLs)
}

// weight is what Weights says about one of the URLs, 1 if nothing.
func (u *Upstream) weight(at *url.URL) int {
	for key, n := range u.Weights {
		if named := canonicalURL(key); named != nil && hostPort(named) == hostPort(at) {
			return n
		}
	}
	return 1
}

// ServerNames are the names that the upstream's servers have: ServerName, or
// the hosts of all URLs where each has its own.
func (u *Upstream) ServerNames() []string {
	if u.ServerName != "" {
		return []string{u.ServerName}
	}
	var names []string
	for _, at := range u.places() {
		if name := hostOf(at); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Target is where the upstream is, for people: its URL, its URLs with commas
// between them and "backup:" before those that stand by, or "srv:" and the name
// of the records.
func (u *Upstream) Target() string {
	if u.SRV != "" {
		return "srv:" + u.SRV
	}
	var urls []string
	for _, e := range u.Endpoints() {
		at := e.URL.String()
		if e.Backup {
			at = "backup:" + at
		}
		urls = append(urls, at)
	}
	return strings.Join(urls, ",")
}

// HostField is the Host field for this upstream; empty to pass on the caller's.
// With URLs it is that of the first endpoint: others may have another, see
// Endpoint.Host. With SRV it has no port.
func (u *Upstream) HostField() string {
	if list := u.Endpoints(); len(list) > 0 {
		return list[0].Host
	}
	return u.hostField(u.ServerName, "")
}

// Address is the "host:port" of the first endpoint for dialling; empty with SRV.
func (u *Upstream) Address() string {
	if list := u.Endpoints(); len(list) > 0 {
		return list[0].Address
	}
	return ""
}

// hostField is the Host field for a server of that name on that port.
func (u *Upstream) hostField(name, port string) string {
	switch u.Host {
	case HostPreserve:
		return ""
	case HostUpstream:
		if strings.Contains(name, ":") {
			name = "[" + name + "]"
		}
		if port != "" && port != "443" {
			name += ":" + port
		}
		return name
	}
	return u.Host
}

// hostOf is the name or address in a URL, as certificates have it.
func hostOf(u *url.URL) string { return strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) }

// hostPort is where connections to u go.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// canonicalURL keeps scheme and host of a URL that checkURL accepted.
func canonicalURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		return nil
	}
	return &url.URL{Scheme: "https", Host: strings.ToLower(u.Host)}
}

// canonicalProxy keeps scheme, user and host of a URL that checkProxy accepted.
func canonicalProxy(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		return nil
	}
	return &url.URL{Scheme: "http", User: u.User, Host: strings.ToLower(u.Host)}
}
