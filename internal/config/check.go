package config

import (
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The functions of this file judge one string each. They return what is wrong
// with it and how to put it right; an empty fact means that it is fine.

const listenHint = `write "127.0.0.1:8080", "[::1]:8080" or "unix:/run/mtls-proxy/NAME.sock"`

func checkServerName(s string) (fact, hint string) {
	switch {
	case isHostName(s) || isAddress(s):
		return "", ""
	case isAuthority(s):
		return quote(s) + " is not a name alone", "leave out the port and brackets"
	}
	return quote(s) + " is not a host name", `write a name as in "api.example.net"`
}

// checkPeerName accepts the forms in which a certificate can name its holder.
func checkPeerName(s string) (fact, hint string) {
	const forms = `write "api.example.net", "*.example.net" or "spiffe://example.net/path"`
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" && u.Path == "":
			return quote(s) + " is not a URI", forms
		case strings.Contains(s, "*"):
			return quote(s) + " would accept more than one name", "write the URI in full"
		case u.Scheme == "spiffe" && (u.Host == "" || u.User != nil || u.Port() != "" || u.RawQuery != "" || u.Fragment != ""):
			return quote(s) + " is not a SPIFFE ID", `write "spiffe://TRUST-DOMAIN/PATH"`
		case u.Scheme == "spiffe" && (u.Path == "" || u.Path == "/"):
			return quote(s) + " names a trust domain and nobody in it", `write "spiffe://TRUST-DOMAIN/PATH"`
		}
		return "", ""
	}
	name, wildcard := strings.CutPrefix(s, "*.")
	switch {
	case s == "*":
		return `"*" would accept every server that the trust bundle vouches for`, forms
	case isAddress(s):
		return quote(s) + " is an address, and only DNS names and URIs are compared", "set server_name to the address"
	case !isHostName(name):
		return quote(s) + " is neither a DNS name nor a URI", forms
	case wildcard && !strings.Contains(name, "."):
		return quote(s) + " would accept a whole top-level domain", forms
	}
	return "", ""
}

func checkPin(s string) (fact, hint string) {
	if _, ok := parsePin(s); ok {
		return "", ""
	}
	return quote(s) + " is not a pin", `write "sha256//" and the SHA-256 of the public key (SubjectPublicKeyInfo) in base64, 44 characters`
}

// checkHostSent accepts the two words and what may stand in a Host field.
func checkHostSent(s string) (fact, hint string) {
	words := []string{HostUpstream, HostPreserve}
	switch near := nearest(s, words); {
	case slices.Contains(words, s):
		return "", ""
	case near != "" && !strings.Contains(s, "."):
		return quote(s) + " is neither a known word nor a name with a dot", `did you mean "` + near + `"?`
	case !isAuthority(s):
		return quote(s) + " cannot be sent as Host", `write "upstream", "preserve" or a name as in "api.example.net"`
	}
	return "", ""
}

func checkListenAddress(s string) (fact, hint string) {
	file, unix := strings.CutPrefix(s, "unix:")
	switch {
	case unix && strings.HasPrefix(file, "@"):
		return quote(s) + " is an abstract socket, which no file mode protects", `write "unix:/run/mtls-proxy/NAME.sock"`
	case unix && !filepath.IsAbs(file):
		return quote(s) + " is not an absolute path", `write "unix:/run/mtls-proxy/NAME.sock"`
	case unix:
		return checkSocketPath(file)
	case strings.HasPrefix(s, "/"):
		return quote(s) + " is a path without its kind", `write "unix:` + printable(s) + `"`
	}
	return checkTCPAddress(s, listenHint)
}

func checkAdminAddress(s string) (fact, hint string) {
	if strings.HasPrefix(s, "unix:") || strings.HasPrefix(s, "/") {
		return quote(s) + " is not a TCP address", `the Unix socket is the key "socket"`
	}
	return checkTCPAddress(s, `write "127.0.0.1:8081", or "" for none`)
}

func checkTCPAddress(s, how string) (fact, hint string) {
	if _, err := netip.ParseAddrPort(s); err == nil {
		return "", ""
	}
	i := strings.LastIndexByte(s, ':')
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return quote(s) + " has no port", `write "` + netip.AddrPortFrom(addr, 8080).String() + `"`
	}
	if i < 0 {
		return quote(s) + " is not an address with a port", how
	}
	host, port := s[:i], s[i+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
		return quote(s) + " has no port between 0 and 65535", how
	}
	switch host {
	case "", "*":
		return quote(s) + " would be reachable from other hosts", `write "127.0.0.1:` + port + `"; "0.0.0.0:` + port + `" and "[::]:` + port + `" if other hosts are meant to use it`
	case "localhost":
		return quote(s) + " is a name, and addresses are bound", `write "127.0.0.1:` + port + `" or "[::1]:` + port + `"`
	}
	return quote(s) + " is not an IP address with a port", how
}

// maxSocketPath is what fits into sockaddr_un with its final zero.
const maxSocketPath = 107

func checkSocketPath(s string) (fact, hint string) {
	switch {
	case len(s) > maxSocketPath:
		return "the path has " + strconv.Itoa(len(s)) + " bytes, and a Unix socket takes at most " + strconv.Itoa(maxSocketPath), "use a shorter path"
	case strings.HasSuffix(s, "/"):
		return "ends in a slash, and a socket is no folder", "write the name of the socket behind it"
	}
	return "", ""
}

func checkAllowedHost(s string) (fact, hint string) {
	switch {
	case s == "*" || isHost(s):
		return "", ""
	case isAddress(s):
		return quote(s) + " has no brackets", `write "[` + s + `]"`
	case strings.HasPrefix(s, "*."):
		return quote(s) + " is a pattern", `write the names one by one, or "*" for any`
	case isAuthority(s):
		return quote(s) + " has a port", "leave out the port; a name holds for every port"
	}
	return quote(s) + " is not a host name", `write a name as in "api.localhost", or "*" for any`
}

func checkAllowedOrigin(s string) (fact, hint string) {
	const example = `write it as in "https://app.example.net" or "http://localhost:3000"`
	scheme, rest, _ := strings.Cut(s, "://")
	switch {
	case s == "*":
		return `"*" would let every web page in`, `browser_requests = "allow" turns the guard off`
	case scheme != "http" && scheme != "https":
		return quote(s) + " begins with neither http:// nor https://", example
	case isHost(rest), isAuthority(rest):
		return "", ""
	case strings.HasSuffix(rest, "/"):
		return quote(s) + " is more than an origin", "leave out the slash at its end"
	}
	return quote(s) + " is not an origin", example
}

func checkRouteHost(s string) (fact, hint string) {
	name := strings.TrimPrefix(s, "*.")
	switch {
	case isHost(s), isHostName(name):
		return "", ""
	case s == "*":
		return `"*" is not a host name`, "leave host out to match any"
	case isAddress(s):
		return quote(s) + " has no brackets", `write "[` + s + `]"`
	case isAuthority(name):
		return quote(s) + " has a port", "leave out the port; a name holds for every port"
	}
	return quote(s) + " is not a host name", `write "api.localhost" or "*.localhost"`
}

func checkPathPrefix(s string) (fact, hint string) {
	if fact, hint = checkPath(s); fact != "" || s == "/" {
		return fact, hint
	}
	if strings.HasSuffix(s, "/") {
		return quote(s) + " ends in a slash", `write "` + strings.TrimRight(s, "/") + `", which matches that path and everything below it`
	}
	return "", ""
}

// checkEditedPrefix judges what is taken from or put before a path.
func checkEditedPrefix(s string) (fact, hint string) {
	if s == "/" {
		return `"/" changes nothing`, "remove it"
	}
	if fact, hint = checkPath(s); fact == "" && strings.HasSuffix(s, "/") {
		return quote(s) + " ends in a slash", `write "` + strings.TrimRight(s, "/") + `"`
	}
	return fact, hint
}

// checkPath accepts a path that every reader takes the same way.
func checkPath(s string) (fact, hint string) {
	if !strings.HasPrefix(s, "/") {
		return quote(s) + " does not begin with a slash", `write "/` + printable(s) + `"`
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '?' || c == '#':
			return quote(s) + " is more than a path", "leave out the query and the fragment"
		case c == '\\':
			return quote(s) + " has a backslash, which some servers read as a slash", "write a slash"
		case c != '/' && c != '%' && !isPathByte(c):
			return quote(s) + " has a character that a path cannot have", "write it percent-encoded, as in %20"
		case c == '%':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return quote(s) + ` has a "%" that begins no encoded byte`, "write %25"
			}
			b, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
			switch {
			case strings.IndexByte("/\\.%", byte(b)) >= 0 || b < ' ' || b == 0x7f || b == ';' || b == '?' || b == '#':
				return quote(s) + " has an encoded byte that servers disagree about (" + s[i:i+3] + ")", "write the prefix without it"
			case isPathByte(byte(b)):
				return quote(s) + " encodes a character that needs no code", "write " + string(rune(b)) + " for " + s[i:i+3]
			case strings.ToUpper(s[i:i+3]) != s[i:i+3]:
				return quote(s) + " has a code in lower case", "write " + strings.ToUpper(s[i:i+3])
			}
			i += 2
		}
	}
	if strings.Contains(s, ";") {
		return quote(s) + ` has a ";", where some servers end a segment`, "write the prefix without it"
	}
	for i, segment := range strings.Split(s[1:], "/") {
		if strings.HasSuffix(segment, "%20") || strings.HasSuffix(segment, ".") && strings.Trim(segment, ".") != "" {
			return quote(s) + " has a segment that ends in a dot or a blank, which some servers cut off", "write the prefix without it"
		}
		switch name, _, _ := strings.Cut(segment, ";"); {
		case name == "." || name == "..":
			return quote(s) + " has a dot segment", "write the path that it stands for"
		case segment == "" && s != "/" && i < strings.Count(s, "/")-1:
			return quote(s) + " has two slashes in a row", "write one"
		}
	}
	return "", ""
}

func checkMethod(s string) (fact, hint string) {
	switch {
	case !isToken(s) || len(s) > 32:
		return quote(s) + " is not a method", `write methods as in "GET"`
	case strings.ToUpper(s) != s:
		return quote(s) + " is not in upper case, and methods are told apart by it", `write "` + strings.ToUpper(s) + `"`
	case s == "CONNECT":
		return `"CONNECT" is never forwarded`, "remove it"
	}
	return "", ""
}

// checkFieldName accepts header fields that the proxy does not make itself.
func checkFieldName(s string) (fact, hint string) {
	if !isToken(s) {
		return quote(s) + " is not the name of a header field", `write names as in "X-Request-Source"`
	}
	hyphens := strings.ReplaceAll(strings.ToLower(s), "_", "-")
	if strings.Contains(s, "_") {
		if fact, _ := checkFieldName(hyphens); fact != "" || slices.Contains([]string{"via", "forwarded"}, hyphens) || strings.HasPrefix(hyphens, "x-forwarded-") {
			return quote(s) + " is another spelling of a field that the proxy sets", "write it with hyphens"
		}
		return "", ""
	}
	switch {
	case hyphens == "host":
		return "Host cannot be edited", "set host in the upstream"
	case isFraming(hyphens):
		return quote(s) + " says where a message ends and cannot be edited", "remove it; it is made anew for each message"
	case isHopByHop(hyphens):
		return quote(s) + " belongs to a single connection and cannot be edited", "remove it; it never passes through"
	}
	return "", ""
}

// isFraming and isHopByHop do not care for case.
func isFraming(name string) bool {
	return slices.Contains([]string{"content-length", "transfer-encoding", "trailer", "expect"}, strings.ToLower(name))
}

func isHopByHop(name string) bool {
	return slices.Contains([]string{"connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings", "proxy-authenticate", "proxy-authorization", "max-forwards"}, strings.ToLower(name))
}

// checkFieldValue never quotes the value, which may be a secret.
func checkFieldValue(s string) (fact, hint string) {
	for i := 0; i < len(s); i++ {
		if (s[i] < ' ' && s[i] != '\t') || s[i] == 0x7f {
			return "has a control character in it", "header values are one line of text"
		}
	}
	if strings.Trim(s, " \t") != s {
		return "begins or ends with a blank", "remove the blank"
	}
	return "", ""
}

func checkGroup(s string) (fact, hint string) {
	if s == "" || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' || r == '/' }) {
		return quote(s) + " is not a group", "write the name or the number of a group"
	}
	return "", ""
}

func checkUser(s string) (fact, hint string) {
	if s == "" || len(s) > 128 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' }) {
		return "is not the name of a user", "names have no colon and no control characters"
	}
	return "", ""
}

// checkHash looks at the shape of a bcrypt hash. It never quotes it.
func checkHash(s string) (fact, hint string) {
	const bcryptLength, maxCost = 60, 16 // at 16 one guess takes seconds, and so does each login
	version, rest, _ := strings.Cut(strings.TrimPrefix(s, "$"), "$")
	cost, digest, _ := strings.Cut(rest, "$")
	n, err := strconv.Atoi(cost)
	switch {
	case len(s) != bcryptLength || s[0] != '$' || !slices.Contains([]string{"2a", "2b", "2y"}, version) || len(cost) != 2 || err != nil ||
		strings.ContainsFunc(digest, func(r rune) bool { return !isAlphanumeric(r) && r != '.' && r != '/' }):
		return "is not a bcrypt hash", "make one with mtls-proxy hash-password"
	case n < 4 || n > maxCost:
		return "has a bcrypt cost outside of 4 to " + strconv.Itoa(maxCost), "make one with mtls-proxy hash-password"
	}
	return "", ""
}

func checkOpenPath(s string) (fact, hint string) {
	paths := []string{"/livez", "/metrics", "/readyz", "/status"}
	if slices.Contains(paths, s) {
		return "", ""
	}
	return quote(s) + " is not a path of the admin listener", didYouMean(s, paths)
}

// checkTableName judges the NAME in [upstream.NAME], which labels metrics, log
// records and sockets.
func checkTableName(s string) (fact, hint string) {
	if s == "" || len(s) > 63 || strings.ContainsFunc(s, func(r rune) bool { return !isAlphanumeric(r) && !strings.ContainsRune("_.-", r) }) || !isAlphanumeric(rune(s[0])) {
		return "is not a usable name", `names have letters, digits, "_", "." and "-", begin with a letter or digit, and have at most 63 characters`
	}
	return "", ""
}

// isAuthority reports whether s is a host, perhaps with a port. IPv6 addresses
// are in brackets.
func isAuthority(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || len(port) > 5 {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && strings.Contains(inner, ":") && isAddress(inner)
	}
	return isHostName(strings.TrimSuffix(host, ".")) || isAddress(host) && !strings.Contains(host, ":")
}

// isHost reports whether s is the host of an authority, without a port.
func isHost(s string) bool {
	return isAuthority(s) && (strings.HasSuffix(s, "]") || !strings.Contains(s, ":")) && !strings.HasSuffix(s, ".")
}

// canonicalHost is how callers write the host s: in lower case, and IPv6
// addresses in their shortest form.
func canonicalHost(s string) string {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Is6() {
		return "[" + a.String() + "]"
	}
	return strings.ToLower(s)
}

func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// isHostName reports whether s is a DNS name as it stands in certificates and
// Host fields. What looks like an IPv4 address is not one.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return !isAlphanumeric(r) && r != '-' && r != '_' }) {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !isAlphanumeric(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

func isAlphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// isPathByte reports whether c stands for itself in a segment (RFC 3986, 3.3).
func isPathByte(c byte) bool {
	return isAlphanumeric(rune(c)) || strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// printable is s for a hint that is to be pasted: quoting marks and controls
// are gone, and so is what makes it long.
func printable(s string) string {
	q := quote(s)
	return strings.TrimSuffix(strings.Trim(strings.TrimSuffix(q, "…"), `"`), `\`)
}
