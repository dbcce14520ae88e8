package http1

import (
	"bytes"
	"strings"
)

// LocationRewrite keeps a caller who follows redirects and returns cookies with us, on plain HTTP.
//
// Location and Content-Location that lead to the upstream's own origin lead to the caller's Host over http instead;
// there, and in those that are a path only, the request's prefixes are undone. Other origins, and paths relative
// to the request's, stay as they are.
//
// Of Set-Cookie, Secure goes, and what browsers take only together with it: SameSite=None and Partitioned; so does a
// Domain that the upstream's host is in, which makes the cookie one of our host; Path has the prefixes undone,
// unless it is "/". Cookies named __Host- or __Secure- stay as they are: without Secure no browser takes them.
type LocationRewrite struct {
	Origins     []string // of the upstream, lower case: "https://api.example", "https://api.example:443"
	OwnHost     bool     // the upstream is sent the caller's Host, so that this is a name of its own as well
	Domains     []string // the upstream's host names, lower case
	StripPrefix string   // as in RequestRewrite
	AddPrefix   string
}

// append writes f, which is Location, Content-Location or Set-Cookie.
func (l *LocationRewrite) append(dst []byte, f *Field, host []byte) []byte {
	dst = append(dst, f.Name...)
	dst = append(dst, ": "...)
	if f.ID == SetCookie {
		dst = l.appendCookie(dst, f.Value)
	} else {
		dst = l.appendLocation(dst, f.Value, host)
	}
	return append(dst, "\r\n"...)
}

func (l *LocationRewrite) appendLocation(dst, value, host []byte) []byte {
	rest, own := l.cutOrigin(value)
	if !own && l.OwnHost {
		rest, own = cutHost(value, host)
	}
	if own && len(host) > 0 {
		dst = append(dst, "http://"...)
		dst = append(dst, host...)
		return l.appendPath(dst, rest)
	}
	if len(value) == 0 || value[0] != '/' || leavesOrigin(value) {
		return append(dst, value...)
	}
	start := len(dst)
	dst = l.appendPath(dst, value)
	if leavesOrigin(dst[start:]) {
		return append(dst[:start], value...) // "/v2//elsewhere" would come out as a host name
	}
	return dst
}

// leavesOrigin reports whether a reference that begins with a slash goes on with an authority; browsers
// take backslashes for slashes.
func leavesOrigin(ref []byte) bool { return len(ref) > 1 && (ref[1] == '/' || ref[1] == '\\') }

// cutOrigin takes one of the upstream's origins off, with its scheme or, as "//api.example", without. If
// none is there, rest is the whole value.
func (l *LocationRewrite) cutOrigin(value []byte) (rest []byte, own bool) {
	for _, origin := range l.Origins {
		if bytes.HasPrefix(value, []byte("//")) {
			_, origin, _ = strings.Cut(origin, ":")
		}
		if rest, own := cutOwn(value, origin); own {
			return rest, true
		}
	}
	return value, false
}

// cutHost takes off the origin of the caller's Host, whatever its scheme.
func cutHost(value, host []byte) (rest []byte, own bool) {
	rest = value
	for _, scheme := range [...]string{"https:", "http:"} {
		if hasFoldedPrefix(value, scheme) {
			rest = value[len(scheme):]
			break
		}
	}
	if !bytes.HasPrefix(rest, []byte("//")) {
		return value, false
	}
	if rest, own = cutOwn(rest[2:], string(host)); own {
		return rest, true
	}
	return value, false
}

// cutOwn takes an origin, or a host, off the beginning of a reference, if that is all of it before the path.
func cutOwn(value []byte, origin string) (rest []byte, own bool) {
	n := len(origin)
	if len(value) < n || !equalFold(value[:n], origin) {
		return value, false
	}
	if len(value) == n || value[n] == '/' || value[n] == '?' || value[n] == '#' {
		return value[n:], true
	}
	return value, false
}

// appendPath writes a path, with what follows it, as the caller would have to ask for it.
func (l *LocationRewrite) appendPath(dst, path []byte) []byte {
	end := len(path)
	if i := bytes.IndexAny(path, "?#"); i >= 0 {
		end = i
	}
	strip, add := noSlash(l.StripPrefix), noSlash(l.AddPrefix)
	if hasSegments(path[:end], add) {
		dst = append(dst, strip...)
		path = path[len(add):]
		end -= len(add)
		if end == 0 && strip == "" {
			dst = append(dst, '/')
		}
	}
	return append(dst, path...)
}

func (l *LocationRewrite) appendCookie(dst, value []byte) []byte {
	if hasFoldedPrefix(value, "__host-") || hasFoldedPrefix(value, "__secure-") {
		return append(dst, value...)
	}
	pair, attributes, found := bytes.Cut(value, []byte(";"))
	dst = append(dst, pair...)
	for found {
		var attribute []byte
		attribute, attributes, found = bytes.Cut(attributes, []byte(";"))
		name, v, _ := bytes.Cut(attribute, []byte("="))
		name, v = trim(name), trim(v)
		switch {
		case equalFold(name, "secure"), equalFold(name, "partitioned"):
			continue
		case equalFold(name, "samesite") && equalFold(v, "none"):
			continue
		case equalFold(name, "domain") && l.covers(v):
			continue
		case equalFold(name, "path") && len(v) > 1 && v[0] == '/' && (l.StripPrefix != "" || l.AddPrefix != ""):
			dst = append(dst, "; Path="...)
			dst = l.appendPath(dst, v)
			continue
		}
		dst = append(dst, ';')
		dst = append(dst, attribute...)
	}
	return dst
}

// covers reports whether the upstream's host is domain or lies below it.
func (l *LocationRewrite) covers(domain []byte) bool {
	if len(domain) > 0 && domain[0] == '.' {
		domain = domain[1:]
	}
	for _, host := range l.Domains {
		if n := len(host) - len(domain); n >= 0 && equalFold(domain, host[n:]) && (n == 0 || host[n-1] == '.') {
			return true
		}
	}
	return false
}

func hasFoldedPrefix(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && equalFold(s[:len(prefix)], prefix)
}
