package http1

import "bytes"

// Form is the form of a request target, RFC 9112 section 3.2.
type Form uint8

const (
	OriginForm Form = iota
	AbsoluteForm
	AsteriskForm // "OPTIONS *", also when spelt "OPTIONS http://host"
)

// The parts of a target that are not spelt out in it.
var (
	slash    = []byte("/")
	asterisk = []byte("*")
)

// readTarget takes the target apart. Its bytes were checked already.
func (r *Request) readTarget() flaw {
	t := r.Target
	switch {
	case t[0] == '/':
		r.Form = OriginForm
		r.Path, r.Query = cutQuery(t)
		return sound
	case len(t) == 1 && t[0] == '*':
		if string(r.Method) != "OPTIONS" {
			return flawAsterisk
		}
		r.Form, r.Path = AsteriskForm, t
		return sound
	}
	rest, ok := cutScheme(t)
	if !ok {
		if validHost(t) && bytes.IndexByte(t, ':') > 0 {
			return flawConnect
		}
		return flawTargetForm
	}
	end := len(rest)
	if i := bytes.IndexAny(rest, "/?"); i >= 0 {
		end = i
	}
	r.Form = AbsoluteForm
	r.Host = rest[:end]
	if !validHost(r.Host) {
		return flawHost
	}
	r.Path, r.Query = cutQuery(rest[end:])
	if len(r.Path) == 0 {
		r.Path = slash
		if len(r.Query) == 0 && string(r.Method) == "OPTIONS" {
			r.Form, r.Path = AsteriskForm, asterisk // RFC 9112 section 3.2.4
		}
	}
	return sound
}

// cutScheme takes http:// or https:// off, in any case.
func cutScheme(t []byte) (rest []byte, ok bool) {
	for _, s := range [...]string{"http://", "https://"} {
		if len(t) > len(s) && equalFold(t[:len(s)], s) {
			return t[len(s):], true
		}
	}
	return nil, false
}

// cutQuery splits at the first "?", which goes with the query.
func cutQuery(t []byte) (path, query []byte) {
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		return t[:i], t[i:]
	}
	return t, nil
}

const maxHost = 255 + len(":65535")

// validHost accepts name, IPv4 or [IPv6], each with or without a port. Names are letters, digits and
// "-._~": percent-encoding and sub-delimiters, which RFC 3986 would allow, occur in attacks only.
func validHost(h []byte) bool {
	if len(h) == 0 || len(h) > maxHost {
		return false
	}
	var end int
	if h[0] == '[' {
		end = bytes.IndexByte(h, ']')
		if end < 0 || !validIPv6(h[1:end]) {
			return false
		}
		end++
	} else {
		if end = skip(h, 0, hostByte); end == 0 {
			return false
		}
	}
	return end == len(h) || h[end] == ':' && (end+1 == len(h) || validPort(h[end+1:])) // RFC 3986 section 3.2.3: it may be empty
}

func validPort(p []byte) bool {
	n, ok := decimal(p)
	return ok && len(p) <= 5 && 1 <= n && n <= 65535
}

// validIPv6 follows RFC 4291 section 2.2; there are no zones in URLs that a server sees.
func validIPv6(a []byte) bool {
	groups, gap := 0, false
	for i := 0; i < len(a); {
		if a[i] == ':' {
			// A colon where a group should begin is good only as the one "::".
			if i+1 == len(a) || a[i+1] != ':' || gap || i > 0 && a[i-1] == ':' {
				return false
			}
			gap = true
			i += 2
			continue
		}
		end := skip(a, i, hexByte)
		if end < len(a) && a[end] == '.' {
			if !validIPv4(a[i:]) {
				return false
			}
			groups += 2
			break
		}
		if end == i || end-i > 4 {
			return false
		}
		groups++
		i = end
		if i == len(a) {
			break
		}
		if a[i] != ':' || i+1 == len(a) {
			return false
		}
		if a[i+1] != ':' {
			i++
		}
	}
	return groups == 8 && !gap || groups < 8 && gap
}

func validIPv4(a []byte) bool {
	parts := 0
	for rest := a; ; {
		part, more, found := bytes.Cut(rest, []byte("."))
		n, ok := decimal(part)
		if !ok || len(part) > 3 || n > 255 || len(part) > 1 && part[0] == '0' {
			return false
		}
		parts++
		if !found {
			return parts == 4
		}
		rest = more
	}
}
