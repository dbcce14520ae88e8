package route

import "bytes"

// A path reaches the upstream as it came, byte for byte, and what reads it there
// is not ours: it may resolve escapes, once or twice, take backslashes for
// slashes, merge doubled slashes, and resolve dot segments, before or after. Each
// combination is a reading. When one of them falls under another rule than the
// bytes do, we cannot know whose request it is: /public/..%2fadmin must not reach
// /admin by the rule of /public.

const shortPath = 1024 // a doubtful path up to this length is judged without allocating

// doubtful reports whether path could be read in more than one way. It is all
// that this file costs an ordinary path.
func doubtful(path []byte) bool {
	slash := false
	for _, c := range path {
		if c == '%' || c == '\\' || slash && (c == '/' || c == '.') {
			return true
		}
		slash = c == '/'
	}
	return false
}

// question asks whether some reading of a path has another outcome than its bytes
// had. It is a type, not closures, so that its buffers stay on the stack.
type question struct {
	scope        *scope
	host, method []byte
	rule         int // the outcome for the bytes
	verdict      Verdict
}

func (s *scope) readsOtherwise(host, path, method []byte, rule int, v Verdict) bool {
	q := question{s, host, method, rule, v}
	if q.separators(path, false) {
		return true
	}
	if bytes.IndexByte(path, '%') < 0 {
		return false
	}
	var buf, other [shortPath]byte
	once := unescape(buf[:0], path, everything)
	if q.separators(once, true) {
		return true
	}
	if kept := unescape(other[:0], path, allButSeparators); len(kept) != len(once) && q.separators(kept, true) {
		return true
	}
	twice := unescape(other[:0], once, everything)
	return len(twice) != len(once) && q.separators(twice, true)
}

// separators asks about path, and about what it is when backslashes are slashes.
func (q *question) separators(path []byte, decoded bool) bool {
	if q.slashes(path, decoded) {
		return true
	}
	if bytes.IndexByte(path, '\\') < 0 {
		return false
	}
	var buf [shortPath]byte
	turned := append(buf[:0], path...)
	for i, c := range turned {
		if c == '\\' {
			turned[i] = '/'
		}
	}
	return q.slashes(turned, decoded)
}

// slashes asks about path, and about what is left of it when doubled slashes are
// merged, dot segments resolved, or both in either order.
func (q *question) slashes(path []byte, decoded bool) bool {
	if q.differs(path, decoded) {
		return true
	}
	doubled := bytes.Contains(path, []byte("//"))
	dots := bytes.Contains(path, []byte("/."))
	var buf [shortPath]byte
	if doubled && q.differs(merge(buf[:0], path), decoded) {
		return true
	}
	if !dots {
		return false
	}
	for _, parameters := range [...]bool{false, true} {
		resolved := resolve(buf[:0], path, parameters)
		if q.differs(resolved, decoded) {
			return true
		}
		if !doubled {
			continue
		}
		if q.differs(merge(resolved[:0], resolved), decoded) {
			return true
		}
		merged := merge(buf[:0], path)
		if q.differs(resolve(merged[:0], merged, parameters), decoded) {
			return true
		}
	}
	return false
}

func (q *question) differs(reading []byte, decoded bool) bool {
	rule, v := q.scope.find(q.host, reading, q.method, decoded)
	return rule != q.rule || v != q.verdict
}

// merge appends path to dst with every run of slashes made one. dst may be path[:0].
func merge(dst, path []byte) []byte {
	slash := false
	for _, c := range path {
		if c == '/' && slash {
			continue
		}
		slash = c == '/'
		dst = append(dst, c)
	}
	return dst
}

// resolve appends path to dst without its dot segments, as RFC 3986, section 5.2.4
// resolves them. With parameters, "..;x" is a dot segment as well: Java servers
// cut what follows the semicolon first. dst may be path[:0].
func resolve(dst, path []byte, parameters bool) []byte {
	start := len(dst)
	for len(path) > 0 {
		segment, end := path[1:], len(path)
		if slash := bytes.IndexByte(segment, '/'); slash >= 0 {
			end = slash + 1
		}
		segment = path[1:end]
		last := end == len(path)
		name := segment
		if parameters {
			name, _, _ = bytes.Cut(segment, []byte(";"))
		}
		switch string(name) {
		case ".":
		case "..":
			dst = dst[:max(start, start+bytes.LastIndexByte(dst[start:], '/'))]
		default:
			dst = append(dst, path[:end]...)
			path = path[end:]
			continue
		}
		if last {
			dst = append(dst, '/')
		}
		path = path[end:]
	}
	return dst
}

// Which escapes unescape resolves.
type escapes uint8

const (
	everything       escapes = iota
	allButSeparators         // %2F and %5C stay
)

// unescape appends path to dst, escapes resolved; what is none is copied. dst may
// be path[:0].
func unescape(dst, path []byte, which escapes) []byte {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			high, low := hex(path[i+1]), hex(path[i+2])
			if d := high<<4 | low; high < 16 && low < 16 && (which == everything || d != '/' && d != '\\') {
				c = d
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// hex returns the value of a hexadecimal digit, 16 for anything else.
func hex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
