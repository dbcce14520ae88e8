package upstream

import (
	"net"
	"slices"
	"strings"
	"time"
)

// Drain puts the endpoint with that address, as Endpoints tells it, aside until Resume. It reports whether there is one.
func (u *Upstream) Drain(address string) bool { return u.set.Drain(address) }

// Resume takes back a Drain. It reports whether there was one.
func (u *Upstream) Resume(now time.Time, address string) bool { return u.set.Resume(now, address) }

// Drained returns the addresses that Drain put aside, those that have left and may come back included.
func (u *Upstream) Drained() []string { return u.set.Drained() }

// Replace has the drained endpoints of old, which u is to replace, be drained here as well.
func (u *Upstream) Replace(old *Upstream) { u.set.KeepDrained(old.set.Drained()) }

// Match returns the addresses that text means, as Endpoints and Drained tell them: one of them; or an IP address or a
// name, with its port or without, which several may have; or the URL of a server.
func (u *Upstream) Match(text string) (addresses []string) {
	text = strings.ToLower(text)
	if rest, is := strings.CutPrefix(text, "https://"); is {
		text = strings.TrimSuffix(rest, "/")
		if _, _, err := net.SplitHostPort(text); err != nil {
			text = net.JoinHostPort(strings.Trim(text, "[]"), "443")
		}
	}
	for _, m := range u.set.Endpoints() {
		if means(text, m.ID) {
			addresses = append(addresses, m.ID)
		}
	}
	for _, id := range u.Drained() {
		if means(text, id) && !slices.Contains(addresses, id) {
			addresses = append(addresses, id)
		}
	}
	return addresses
}

// means reports whether text is one of the ways to say id, which is name@ip:port or host:port.
func means(text, id string) bool {
	name, address, found := strings.Cut(id, "@")
	if !found {
		name, address = "", id
	}
	host, port, _ := net.SplitHostPort(address)
	switch text {
	case id, address, host, "[" + host + "]":
		return true
	}
	return name != "" && (strings.TrimSuffix(text, ".") == name || text == net.JoinHostPort(name, port))
}
