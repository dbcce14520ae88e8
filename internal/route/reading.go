package route

import "bytes"

// A path reaches the upstream as it came, byte for byte. Servers differ in how they read it. They may
//   - resolve escapes, once or twice, those of overlong UTF-8 and full-width characters too;
//   - end it at NUL, as C does, or at an escaped "?" or "#";
//   - take backslashes for slashes;
//   - cut parameters from each segment, as Java does;
//   - cut dots and blanks from the end of each segment, and ignore case, as Windows does;
//   - merge doubled slashes and resolve dot segments, in either order.
//
// Each combination is a reading. If the rule of one reading is not the rule of the bytes, the path is ambiguous:
// /public/..%2fadmin must not reach /admin by the rule of /public. So it is if a reading of the path that is sent leaves the
// prefix that the rule adds.

const shortPath = 1024 // a doubtful path up to this length is judged without allocating

// maxReadBytes bounds the readings of one path, in bytes. A path that has more is taken for ambiguous.
const maxReadBytes = 64 << 10

// doubt says in how many ways a path could be read.
type doubt uint8

const (
	plain    doubt = iota // in one way
	cased                 // by its capitals only
	doubtful              // in any way
)

// doubts is all that this file costs an ordinary path.
func doubts(path []byte) doubt {
	d, last := plain, byte(0)
	for _, c := range path {
		switch {
		case c == '%', c == '\\', c == ';', last == '/' && (c == '/' || c == '.'), last == '.' && c == '/':
			return doubtful
		case 'A' <= c && c <= 'Z':
			d = cased
		}
		last = c
	}
	if last == '.' {
		return doubtful
	}
	return d
}

// question asks whether some reading of a path has another outcome than its bytes
// had. It is a type, not closures, so that its buffers stay on the stack.
type question struct {
	scope        *scope // nil: readings are to stay below a prefix
	host, method []byte
	rule         int // the outcome for the bytes
	verdict      Verdict

	below string // escapes resolved

	left int // of maxReadBytes
}

func (s *scope) readsOtherwise(d doubt, host, path, method []byte, rule int, v Verdict) bool {
	q := question{scope: s, host: host, method: method, rule: rule, verdict: v, left: maxReadBytes}
	if d == cased {
		return q.differs(path, 0)
	}
	return q.escapes(path)
}

// leaves reports whether some reading of what is sent for path is not below the rule's prefixes.
func (r *compiledRule) leaves(path []byte) bool {
	if r.below == "" || path[0] != '/' {
		return false
	}
	q := question{below: r.below, left: maxReadBytes}
	if r.strip != "" && covers(r.strip, path) {
		path = path[len(r.strip):]
	}
	var buf [shortPath]byte
	return q.escapes(append(append(buf[:0], r.add...), path...))
}

// escapes asks about path, and about what it is when escapes are resolved: all of them, once or twice, or those of separators not;
// and when characters that are not ASCII become such, which none but escapes of them can.
func (q *question) escapes(path []byte) bool {
	if q.ends(path, 0) {
		return true
	}
	if bytes.IndexByte(path, '%') < 0 {
		return false
	}
	var buf, other [shortPath]byte
	once := unescape(buf[:0], path, everything)
	if q.ends(once, decoded) {
		return true
	}
	if kept := unescape(other[:0], path, allButSeparators); len(kept) != len(once) && q.ends(kept, decoded) {
		return true
	}
	if narrowed := narrow(other[:0], once); len(narrowed) != len(once) && q.ends(narrowed, decoded) {
		return true
	}
	twice := unescape(other[:0], once, everything)
	return len(twice) != len(once) && q.ends(twice, decoded)
}

// ends asks about path, and about what is left of it when it ends at NUL, "?" or "#".
func (q *question) ends(path []byte, how spelling) bool {
	if q.separators(path, how) {
		return true
	}
	if how&decoded == 0 {
		return false // a request's path has none of them
	}
	if i := bytes.IndexByte(path, 0); i >= 0 && q.separators(path[:i], how) {
		return true
	}
	i := bytes.IndexAny(path, "?#")
	return i >= 0 && q.separators(path[:i], how)
}

// separators asks about path, and about what it is when backslashes are slashes.
func (q *question) separators(path []byte, how spelling) bool {
	if q.segments(path, how) {
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
	return q.segments(turned, how)
}

// segments asks about path, and about what is left of it when parameters, or dots and blanks, or both are cut from the end of each segment.
func (q *question) segments(path []byte, how spelling) bool {
	if q.trimmed(path, how) {
		return true
	}
	if bytes.IndexByte(path, ';') < 0 {
		return false
	}
	var buf [shortPath]byte
	return q.trimmed(cut(buf[:0], path), how)
}

func (q *question) trimmed(path []byte, how spelling) bool {
	if q.slashes(path, how) {
		return true
	}
	var buf [shortPath]byte
	trimmed := trim(buf[:0], path)
	return len(trimmed) != len(path) && q.slashes(trimmed, how)
}

// slashes asks about path, and about what is left of it when doubled slashes are
// merged, dot segments resolved, or both in either order.
func (q *question) slashes(path []byte, how spelling) bool {
	if q.differs(path, how) {
		return true
	}
	doubled := bytes.Contains(path, []byte("//"))
	dots := bytes.Contains(path, []byte("/."))
	var buf [shortPath]byte
	if doubled && q.differs(merge(buf[:0], path), how) {
		return true
	}
	if !dots {
		return false
	}
	parameters := bytes.IndexByte(path, ';') >= 0
	for {
		resolved := resolve(buf[:0], path, parameters)
		if q.differs(resolved, how) {
			return true
		}
		if doubled {
			if q.differs(merge(resolved[:0], resolved), how) {
				return true
			}
			merged := merge(buf[:0], path)
			if q.differs(resolve(merged[:0], merged, parameters), how) {
				return true
			}
		}
		if !parameters {
			return false
		}
		parameters = false
	}
}

// differs asks about one reading, and about what is left of it when it ends only now: at NUL, "?" or "#".
func (q *question) differs(reading []byte, how spelling) bool {
	if q.isOther(reading, how) {
		return true
	}
	if how&decoded == 0 {
		return false
	}
	if i := bytes.IndexByte(reading, 0); i >= 0 && q.isOther(reading[:i], how) {
		return true
	}
	i := bytes.IndexAny(reading, "?#")
	return i >= 0 && q.isOther(reading[:i], how)
}

// isOther asks about one reading, and about what it is in lower case.
func (q *question) isOther(reading []byte, how spelling) bool {
	if q.left -= len(reading) + 1; q.left < 0 {
		return true
	}
	if q.scope == nil {
		// What has escapes as it came is asked about without them.
		return (how&decoded != 0 || bytes.IndexByte(reading, '%') < 0) && !covers(q.below, reading)
	}
	rule, v := q.scope.find(q.host, reading, q.method, how)
	if rule != q.rule || v != q.verdict {
		return true
	}
	if !q.scope.capitals && !hasCapitals(reading) {
		return false
	}
	var buf [shortPath]byte
	return !q.same(q.scope.choices(q.host, lower(buf[:0], reading), how|folded))
}

// same reports whether these rules, found by a path in lower case, are those of the bytes. They are also those of prefixes that only their
// case tells apart, which the configuration does on purpose.
func (q *question) same(choices []choice) bool {
	if q.verdict == NotFound {
		return choices == nil
	}
	for i := range choices {
		if q.verdict == Found && choices[i].rule == q.rule {
			return true
		}
		if q.verdict == MethodNotAllowed && choices[i].allows(q.method) {
			return false
		}
	}
	return q.verdict == MethodNotAllowed && choices != nil
}

// lower appends path to dst in lower case.
func lower(dst, path []byte) []byte {
	for _, c := range path {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// cut appends path to dst without the parameters of its segments: from a semicolon to the next slash.
func cut(dst, path []byte) []byte {
	in := false
	for _, c := range path {
		if in = c == ';' || in && c != '/'; !in {
			dst = append(dst, c)
		}
	}
	return dst
}

// trim appends path to dst without the dots and blanks at the end of its segments. Dot segments stay, but for the blanks behind them.
func trim(dst, path []byte) []byte {
	start := len(dst) // of the segment
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			dst = append(dst, path[i])
			continue
		}
		segment := trimBlanks(dst[start:])
		if s := string(segment); s != "." && s != ".." {
			for n := -1; n != len(segment); {
				n = len(segment)
				segment = trimBlanks(bytes.TrimRight(segment, "."))
			}
		}
		dst = dst[:start+len(segment)]
		if i < len(path) {
			dst = append(dst, '/')
		}
		start = len(dst)
	}
	return dst
}

// trimBlanks cuts what any server takes for white space off the end: controls and blanks, and those of Latin-1 where they are no part of a
// character of UTF-8.
func trimBlanks(s []byte) []byte {
	for n := len(s); n > 0; n-- {
		c := s[n-1]
		if c > ' ' && !(c == 0x85 || c == 0xa0) || c > ' ' && n > 1 && s[n-2] >= 0x80 {
			return s[:n]
		}
	}
	return s[:0]
}

// narrow appends path, escapes resolved, to dst with ASCII for what lenient servers take for it: overlong UTF-8, as %C0%AF for a slash, escapes
// of the form %u002F, and full-width characters.
func narrow(dst, path []byte) []byte {
	for len(path) > 0 {
		r, n := rune(path[0]), 1
		switch c := path[0]; {
		case c == '%' && len(path) >= 6 && path[1]|0x20 == 'u':
			r, n = 0, 6
			for _, digit := range path[2:6] {
				v := hex(digit)
				if v == 16 {
					r, n = '%', 1
					break
				}
				r = r<<4 | rune(v)
			}
		case c >= 0xf0 && c < 0xf8:
			r, n = continued(path, rune(c&0x07), 4)
		case c >= 0xe0 && c < 0xf0:
			r, n = continued(path, rune(c&0x0f), 3)
		case c >= 0xc0 && c < 0xe0:
			r, n = continued(path, rune(c&0x1f), 2)
		}
		if fullWidth := rune(0xff00 - ' '); r > 0xff00 && r < 0xff5f {
			r -= fullWidth
		}
		if n > 1 && r < 0x80 {
			dst = append(dst, byte(r))
		} else {
			dst = append(dst, path[:n]...)
		}
		path = path[n:]
	}
	return dst
}

// continued returns the character of n bytes at the beginning of path; r holds the bits of its first byte. n is 1 if there is none.
func continued(path []byte, r rune, n int) (rune, int) {
	if len(path) < n {
		return rune(path[0]), 1
	}
	for _, c := range path[1:n] {
		if c&0xc0 != 0x80 {
			return rune(path[0]), 1
		}
		r = r<<6 | rune(c&0x3f)
	}
	return r, n
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
