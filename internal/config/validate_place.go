package config

import (
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// backups checks that those that stand by stand beside others.
func (v *validation) backups(u *Upstream, key func(...string) []string) {
	path := key("backup_urls")
	if len(u.BackupURLs) == 0 {
		return
	}
	if u.SRV != "" {
		v.wrong(path, "stands beside srv, whose records have priorities of their own", "give the records of backups a higher number as priority")
	}
	first := u.URLs
	if u.URL != nil {
		first = []*url.URL{u.URL}
	}
	for _, at := range u.BackupURLs {
		if slices.ContainsFunc(first, func(other *url.URL) bool { return hostPort(other) == hostPort(at) }) {
			v.wrong(path, quote(at.String())+" is no backup: it is where requests go first", "remove it here or there")
		}
	}
}

// weights checks that each one belongs to a URL, and none to the same as another.
func (v *validation) weights(u *Upstream, key func(...string) []string) {
	var seen []string
	if len(u.Weights) > 0 && u.Balance == BalanceFirst && v.fine(key("balance")...) {
		v.warn(key("weights", slices.Min(slices.Collect(maps.Keys(u.Weights)))), `has no effect: balance = "first" goes by the order of the URLs`, "remove weights, or choose another balance")
	}
	for _, name := range slices.Sorted(maps.Keys(u.Weights)) {
		path := key("weights", name)
		at := hostPort(canonicalURL(name))
		switch {
		case u.SRV != "":
			v.wrong(path, "stands beside srv, whose records have weights of their own", "set the weight in DNS")
		case slices.Contains(seen, at):
			v.wrong(path, "is there twice", "keep one of the two")
		case !slices.ContainsFunc(u.places(), func(other *url.URL) bool { return hostPort(other) == at }):
			var known []string
			for _, other := range u.places() {
				known = append(known, other.String())
			}
			// What could not be read may be what is missing.
			if len(known) > 0 && v.fine(key("url")...) && v.fine(key("urls")...) && v.fine(key("backup_urls")...) {
				v.wrong(path, "is not one of the upstream's URLs", "they are "+strings.Join(known, ", "))
			}
		}
		seen = append(seen, at)
	}
}

// bind checks that connections can leave from there.
func (v *validation) bind(u *Upstream, key func(...string) []string) {
	from, err := netip.ParseAddr(u.Bind)
	if err != nil {
		return // there is none, or it was refused
	}
	from = from.Unmap()
	u.Bind = from.String()
	family := func(ip netip.Addr) string {
		if ip.Is4() {
			return "IPv4"
		}
		return "IPv6"
	}
	reached := u.places()
	if u.Proxy != nil {
		reached = []*url.URL{u.Proxy}
	}
	for _, at := range reached {
		if to, err := netip.ParseAddr(at.Hostname()); err == nil && to.Unmap().Is4() != from.Is4() {
			v.wrong(key("bind"), "is an address of "+family(from)+", and "+quote(at.Host)+" is one of "+family(to.Unmap()), "write an address of this host of the same family")
			return
		}
	}
}

// checkBind accepts the addresses that one interface can have.
func checkBind(s string) (fact, hint string) {
	const how = `write an address of this host, as in "10.0.0.5"`
	ip, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return quote(s) + " is not an IP address", how
	case ip.Zone() != "":
		return quote(s) + " has a zone", "write a global address of that interface"
	case ip.Unmap().Is6() && ip.IsLinkLocalUnicast():
		return quote(s) + " is a link-local address, which is another one on each interface", "write a global address of this host"
	case ip.IsUnspecified():
		return quote(s) + " is every address", "remove it; without bind the system chooses"
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return quote(s) + " is no address that connections can leave from", how
	}
	return "", ""
}
