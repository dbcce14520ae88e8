package logging

import (
	"strconv"
	"unicode/utf8"
)

const (
	maxWrittenBytes = 256  // of a value that a caller or an upstream wrote
	maxErrorBytes   = 1024 // of the error of a fault, which may quote one
	maxFieldBytes   = 4096 // of any value
	cutMark         = "…"
)

// escape makes s safe to show: what does not print becomes an escape sequence, the backslash included, so that nothing can
// be mistaken for one; and what is longer than max is cut.
func escape(s string, max int) string { return sanitize(s, max, false) }

// escapeBytes is escape of what may be a view; so may be what it returns.
func escapeBytes(b []byte, max int) []byte {
	if len(b) <= max && isPlain(b, false) {
		return b
	}
	return []byte(escape(string(b), max))
}

// tidy is escape for text of our own, which may have lines and tabs, and whose backslashes mean what they say.
func tidy(s string, max int) string { return sanitize(s, max, true) }

func sanitize(s string, max int, ours bool) string {
	if len(s) <= max && isPlain(s, ours) {
		return s
	}
	b := make([]byte, 0, min(len(s)+16, max+12))
	whole := 0 // so much of b stays, should it have to be cut
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case ours && (r == '\n' || r == '\t' || r == '\\'), strconv.IsPrint(r) && r != '\\':
			b = append(b, s[i:i+size]...)
		case r == '\\':
			b = append(b, `\\`...)
		case r < 0x80:
			b = append(b, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
		default:
			b = append(b, `\u{`...)
			b = strconv.AppendInt(b, int64(r), 16)
			b = append(b, '}')
		}
		i += size
		switch {
		case len(b) > max:
			return string(append(b[:whole], cutMark...))
		case len(b) <= max-len(cutMark):
			whole = len(b)
		}
	}
	return string(b)
}

const hexDigits = "0123456789abcdef"

// isPlain tells whether s is printable ASCII, the common case.
func isPlain[S string | []byte](s S, ours bool) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' || c > '~' || c == '\\') && !(ours && (c == '\n' || c == '\t' || c == '\\')) {
			return false
		}
	}
	return true
}
