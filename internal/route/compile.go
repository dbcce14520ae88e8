package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

type compiledRule struct {
	index    int
	listener string
	host     string // lower case; of a wildcard what follows "*."
	wildcard bool
	prefix   string // as a request would carry it, without a slash at its end
	methods  []string

	strip, add string
	below      string // the prefix of what is sent, escapes resolved, which no reading may leave; "": none, or the path is sent as it came
}

func compileRule(r Rule) (compiledRule, error) {
	c := compiledRule{listener: r.Listener, host: strings.ToLower(r.Host), prefix: strings.TrimSuffix(r.PathPrefix, "/")}
	if c.host != "" {
		c.host, c.wildcard = strings.CutPrefix(c.host, "*.")
		if err := checkHost(c.host); err != nil {
			return c, fmt.Errorf("host %q: %w", r.Host, err)
		}
	}
	if r.PathPrefix != "" {
		if err := checkPrefix(r.PathPrefix); err != nil {
			return c, fmt.Errorf("path prefix %q: %w", r.PathPrefix, err)
		}
	}
	c.strip, c.add = strings.TrimSuffix(r.StripPrefix, "/"), strings.TrimSuffix(r.AddPrefix, "/")
	if c.add != "" {
		if err := checkPrefix(c.add); err != nil {
			return c, fmt.Errorf("added prefix %q: %w", r.AddPrefix, err)
		}
	}
	if c.strip+c.add != "" {
		rest, _ := strings.CutPrefix(c.prefix, c.strip)
		c.below = decoded.of(c.add + rest)
	}
	if slices.Contains(r.Methods, "") {
		return c, errors.New("a method is empty")
	}
	c.methods = slices.Clone(r.Methods)
	if slices.Contains(c.methods, "GET") && !slices.Contains(c.methods, "HEAD") {
		c.methods = append(c.methods, "HEAD")
	}
	return c, nil
}

func checkHost(host string) error {
	if strings.HasPrefix(host, "[") {
		addr, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		if err != nil || !addr.Is6() || !strings.HasSuffix(host, "]") {
			return errors.New("not an IPv6 address in brackets; a port does not belong here")
		}
		if want := "[" + addr.String() + "]"; host != want {
			return fmt.Errorf("callers write this address %q", want)
		}
		return nil
	}
	if strings.Contains(host, ":") {
		return errors.New("a port does not belong here: a route is for a name on any port, and an IPv6 address stands in brackets")
	}
	if len(host) > maxHost {
		return fmt.Errorf("longer than %d characters", maxHost)
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" {
			return errors.New("a part of the name is empty")
		}
		for _, c := range label {
			switch {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			case c == '*':
				return errors.New(`"*" stands only for the first parts of a name, as in "*.example.net"`)
			case c > 0x7e:
				return errors.New("not ASCII: write the name as xn--…")
			default:
				return fmt.Errorf("%q is no character of a host name", c)
			}
		}
	}
	return nil
}

// checkPrefix holds a prefix to the one spelling that a request for it has and
// that no reader could take for another path.
func checkPrefix(prefix string) error {
	if prefix[0] != '/' {
		return errors.New("does not begin with a slash")
	}
	decoded := string(unescape(nil, []byte(prefix), everything))
	if want := escape(decoded); want != prefix {
		return fmt.Errorf("write it as requests do, %q", want)
	}
	if len(unescape(nil, []byte(decoded), everything)) != len(decoded) {
		return errors.New("holds a doubly escaped character")
	}
	if strings.Contains(decoded, "//") || strings.Contains(decoded, `\`) {
		return errors.New("holds a doubled slash or a backslash, which some servers read as one slash")
	}
	if strings.ContainsAny(decoded, ";?#\x00") {
		return errors.New(`holds ";", "?", "#" or NUL, where some servers end a segment or the path`)
	}
	if len(narrow(nil, []byte(decoded))) != len(decoded) {
		return errors.New("holds a full-width character or an overlong or %u escape, which some servers read as ASCII")
	}
	for segment := range strings.SplitSeq(decoded, "/") {
		if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
			return errors.New(`holds a "." or ".." segment, which servers resolve`)
		}
	}
	if len(trim(nil, []byte(decoded))) != len(decoded) {
		return errors.New("holds a segment that ends in a dot or a blank, which some servers cut off")
	}
	return nil
}

// escape writes path with percent signs only where RFC 3986, section 3.3 wants them.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("/-._~!$&'()*+,;=:@", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// newScope collects what callers of listener can reach.
func newScope(rules []compiledRule, listener string) *scope {
	exact, wildcard := make(map[string][]compiledRule), make(map[string][]compiledRule)
	var unnamed []compiledRule
	s := &scope{exact: make(map[string]*paths), wildcard: make(map[string]*paths)}
	for _, r := range rules {
		switch {
		case r.listener != "" && r.listener != listener:
			continue
		case r.host == "":
			unnamed = append(unnamed, r)
		case r.wildcard:
			wildcard[r.host] = append(wildcard[r.host], r)
		default:
			exact[r.host] = append(exact[r.host], r)
		}
		s.prefixes = s.prefixes || r.prefix != ""
		s.capitals = s.capitals || hasCapitals([]byte(r.prefix))
	}
	for host, rs := range exact {
		s.exact[host] = newPaths(rs)
	}
	for host, rs := range wildcard {
		s.wildcard[host] = newPaths(rs)
	}
	if len(unnamed) > 0 {
		s.any = newPaths(unnamed)
	}
	return s
}
