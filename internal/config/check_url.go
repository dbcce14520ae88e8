package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The functions of this file judge URLs, and what else names a server. People
// put passwords into URLs: nothing that stands before an "@" is quoted.

// checkURL accepts "https://host" and "https://host:port". It never quotes
// more than the host: people put passwords into URLs.
func checkURL(s string) (fact, hint string) {
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@") || (err == nil && u.User != nil):
		return "has a user name or a password in it", "remove it; the client certificate says who we are"
	case err != nil || !strings.Contains(s, "://"):
		if host, ok := strings.CutPrefix(s, "//"); ok || isAuthority(s) {
			return "does not begin with https://", `write "https://` + printable(host) + `"`
		}
		return "is not a URL", `write "https://HOST" or "https://HOST:PORT"`
	case u.Scheme == "http" && u.Host != "":
		return "is http, and upstreams are reached over TLS only", `write "https://` + printable(u.Host) + `"`
	case u.Scheme != "https" && u.Host != "":
		return "does not begin with https://", `write "https://` + printable(u.Host) + `"`
	case u.Host == "":
		return "has no host", `write "https://HOST" or "https://HOST:PORT"`
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return "has a query or a fragment", `write "https://` + printable(u.Host) + `"`
	case u.Path != "" && u.Path != "/":
		return "has a path", `write "https://` + printable(u.Host) + `", and the path as add_prefix of the route`
	case !isAuthority(u.Host) || strings.Contains(u.Host, "%"):
		return quote(u.Host) + " is not a host with an optional port", "names are in ASCII (xn-- for others), IPv6 addresses in brackets, ports from 1 to 65535"
	}
	return checkReachable(u.Host)
}

// checkReachable refuses the IP addresses that no connection can lead to. host may have a port.
func checkReachable(host string) (fact, hint string) {
	if hasPort(host) {
		host = host[:strings.LastIndexByte(host, ':')]
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch ip = ip.Unmap(); {
	case err != nil: // a name
	case ip.Is6() && ip.IsLinkLocalUnicast():
		return quote(host) + " is a link-local address, which is another one on each interface", "write a global address, or a name that has one"
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return quote(host) + " is no address of a single server", "write the address of one"
	}
	return "", ""
}

// checkSRV accepts the name of SRV records for TCP.
func checkSRV(s string) (fact, hint string) {
	const how = `write "_SERVICE._tcp.example.net"`
	name := strings.TrimSuffix(s, ".")
	labels := strings.Split(name, ".")
	switch {
	case strings.Contains(s, "://"):
		return "is a URL, not the name of SRV records", how
	case isAuthority(s) && !isHost(name):
		return quote(s) + " has a port, and SRV records name the port", how
	case !isHostName(name) || len(labels) < 3 || !isService(labels[0]) || !isService(labels[1]):
		return quote(s) + " is not the name of SRV records", how
	case !strings.EqualFold(labels[1], "_tcp"):
		return quote(s) + " is not for TCP", "write " + strconv.Quote(labels[0]+"._tcp."+strings.Join(labels[2:], "."))
	}
	return "", ""
}

// isService reports whether a label is that of a service or a protocol.
func isService(label string) bool { return len(label) > 1 && label[0] == '_' }

// checkProxy accepts "http://host:port" and "http://user@host:port".
func checkProxy(s string) (fact, hint string) {
	const how = `write "http://HOST:PORT" or "http://USER@HOST:PORT"`
	scheme, user, rest := cutURL(s)
	host := strings.TrimSuffix(rest, "/")
	switch {
	case strings.Contains(user, ":"):
		return "has a password in it", `put it into a file of its own, and write proxy_password_file = "credential:proxy-password"`
	case user != "" && !isURLUser(user[:len(user)-1], ":"):
		return "has a user name that cannot be sent", how
	case scheme == "https":
		return "is https, and the proxy is spoken to over HTTP; TLS to the upstream goes through it", how
	case scheme != "http" && user == "" && isAuthority(host):
		return "does not begin with http://", `write "http://` + printable(host) + `"`
	case scheme != "http":
		return "does not begin with http://", how
	case strings.ContainsAny(host, "/?#"):
		return "has more than a host and a port", how
	case !isAuthority(host):
		return quote(host) + " is not a host with a port", how
	case !hasPort(host):
		return quote(host) + " has no port", `write "http://` + printable(host) + `:3128"`
	}
	return checkReachable(host)
}

// checkShared accepts what leads to a Redis or Valkey.
func checkShared(s string) (fact, hint string) {
	const how = `write "redis://HOST:PORT/0", "rediss://HOST:PORT/0" for TLS, or "unix:///run/redis/redis.sock"`
	scheme, user, rest := cutURL(s)
	switch {
	case strings.Contains(user, ":"):
		return "has a password in it", `put it into a file of its own, and write shared_password_file = "credential:redis-password"`
	case !slices.Contains([]string{"redis", "rediss", "unix"}, scheme):
		return "does not begin with redis://, rediss:// or unix://", how
	case user != "" && !isURLUser(user[:len(user)-1], ""):
		return "has a user name that cannot be sent", how
	case scheme == "unix":
		return checkSharedSocket(rest)
	}
	host, database, _ := strings.Cut(rest, "/")
	switch {
	case strings.ContainsAny(rest, "?#"):
		return "has a query or a fragment", how
	case !isAuthority(host):
		return quote(host) + " is not a host with an optional port", how
	case database != "" && !isDatabase(database):
		return quote(database) + " is not the number of a database", `write "` + scheme + "://" + printable(host) + `/0"`
	}
	return checkReachable(host)
}

// checkSharedSocket judges what follows unix://.
func checkSharedSocket(s string) (fact, hint string) {
	const how = `write "unix:///run/redis/redis.sock", with ?db=1 behind it for another database`
	file, query, more := strings.Cut(s, "?")
	database, _ := strings.CutPrefix(query, "db=")
	switch {
	case !strings.HasPrefix(file, "/"):
		return quote(file) + " is not an absolute path", how
	case strings.ContainsAny(file, "%#"):
		return quote(file) + " has a character that paths in URLs cannot have as it is", how
	case more && (database == query || !isDatabase(database)):
		return "has a query that is not the number of a database", how
	}
	return checkSocketPath(file)
}

// cutURL divides a URL behind its scheme and behind its last "@", which stays
// with the user. What is missing is empty.
func cutURL(s string) (scheme, user, rest string) {
	before, after, found := strings.Cut(s, "://")
	if found {
		scheme, s = strings.ToLower(before), after
	}
	i := strings.LastIndexByte(s, '@') + 1
	return scheme, s[:i], s[i:]
}

// isURLUser reports whether s, as it stands in a URL, is the name of a user
// without controls and without what the caller does not allow.
func isURLUser(s, without string) bool {
	name, err := url.PathUnescape(s)
	return err == nil && name != "" && !strings.ContainsAny(s, "/?#@[] \"<>\\^`{|}") && !strings.ContainsAny(name, without) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// hasPort reports whether an authority has one.
func hasPort(s string) bool { return strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, ']') }

func isDatabase(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && s == strconv.FormatUint(n, 10)
}

// checkRateLimitKey accepts what callers are told apart by.
func checkRateLimitKey(s string) (fact, hint string) {
	const how = `write "all", "user", "unit", "ip" or "header:NAME"`
	name, header := strings.CutPrefix(s, headerKey)
	switch {
	case s == RateKeyAll || s == RateKeyUser || s == RateKeyUnit || s == RateKeyIP:
		return "", ""
	case header && name == "":
		return quote(s) + " names no header field", `write "header:X-Api-Key"`
	case header && !isToken(name):
		return quote(name) + " is not the name of a header field", `write "header:X-Api-Key"`
	case header && (isFraming(name) || isHopByHop(name)):
		return quote(name) + " is about a message or a connection, not about who sent it", "name another field"
	case header:
		return "", ""
	case isToken(s) && strings.Contains(s, "-"):
		return quote(s) + " is not a key of rate limits", `write "` + headerKey + printable(s) + `"`
	}
	return quote(s) + " is not a key of rate limits", how
}

// headerKey begins the keys of rate limits that name a header field.
const headerKey = "header:"
