package logging

import (
	"strconv"
	"strings"
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
	var b strings.Builder
	b.Grow(min(len(s)+16, max))
	var piece [12]byte
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		p := piece[:0]
		switch {
		case r == utf8.RuneError && size == 1:
			p = append(p, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case ours && (r == '\n' || r == '\t' || r == '\\'), strconv.IsPrint(r) && r != '\\':
			p = append(p, s[i:i+size]...)
		case r == '\\':
			p = append(p, `\\`...)
		case r < 0x80:
			p = append(p, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
		default:
			p = append(p, `\u{`...)
			p = strconv.AppendInt(p, int64(r), 16)
			p = append(p, '}')
		}
		i += size
		room := max - b.Len()
		if i < len(s) {
			room -= len(cutMark)
		}
		if len(p) > room {
			b.WriteString(cutMark)
			break
		}
		b.Write(p)
	}
	return b.String()
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
