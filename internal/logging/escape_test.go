package logging

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, tt := range []struct {
		name, in, escaped, tidied string
	}{
		{"plain", "GET /x", "GET /x", "GET /x"},
		{"letters of other languages", "grün 漢", "grün 漢", "grün 漢"},
		{"newline and tab", "a\n\tb", `a\x0a\x09b`, "a\n\tb"},
		{"carriage return", "a\rb", `a\x0db`, `a\x0db`},
		{"terminal sequences", "\x1b]0;x\x07\u009b1m", `\x1b]0;x\x07\u{9b}1m`, `\x1b]0;x\x07\u{9b}1m`},
		{"backslash", `a\x0a`, `a\\x0a`, `a\x0a`},
		{"invalid UTF-8", "a\xc3", `a\xc3`, `a\xc3`},
		{"direction override", "a\u202eb", `a\u{202e}b`, `a\u{202e}b`},
		{"too long", strings.Repeat("x", 65), strings.Repeat("x", 61) + cutMark, strings.Repeat("x", 61) + cutMark},
		{"too long once escaped", strings.Repeat("\x00", 64), strings.Repeat(`\x00`, 15) + cutMark, strings.Repeat(`\x00`, 15) + cutMark},
		{"just right", strings.Repeat("x", 64), strings.Repeat("x", 64), strings.Repeat("x", 64)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := escape(tt.in, 64); got != tt.escaped {
				t.Errorf("escape(%q) = %q, want %q", tt.in, got, tt.escaped)
			}
			if got := tidy(tt.in, 64); got != tt.tidied {
				t.Errorf("tidy(%q) = %q, want %q", tt.in, got, tt.tidied)
			}
		})
	}
}

// FuzzEscape: what comes out prints, is one line, is within its bound, and is what went in when that was harmless.
func FuzzEscape(f *testing.F) {
	f.Add("plain")
	f.Add("a\n\x00\\\xff\u202e")
	f.Add(strings.Repeat("é\x01", 300))
	for n := maxWrittenBytes - 5; n <= maxWrittenBytes+2; n++ {
		f.Add(strings.Repeat("a", n-2) + "é")
		f.Add("é" + strings.Repeat("a", n-2))
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := escape(s, maxWrittenBytes)
		if len(got) > maxWrittenBytes || !utf8.ValidString(got) {
			t.Fatalf("escape(%q) = %q", s, got)
		}
		harmless := len(s) <= maxWrittenBytes && utf8.ValidString(s) && !strings.Contains(s, `\`)
		for _, r := range s {
			harmless = harmless && strconv.IsPrint(r)
		}
		if harmless && got != s {
			t.Errorf("escape(%q) = %q", s, got)
		}
		for _, r := range got {
			if !strconv.IsPrint(r) {
				t.Errorf("escape(%q) = %q has %q", s, got, r)
			}
		}
	})
}
