package config

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"
)

// String writes the duration as one would in the file: "1h", not "1h0m0s".
func (d Duration) String() string {
	s := d.Duration.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits() {
		if s.Bytes != 0 && s.Bytes%u.bytes == 0 && u.binary {
			return strconv.FormatInt(s.Bytes/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(s.Bytes, 10) + "B"
}

// String is the octal number that chmod takes.
func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m.Perm())) }

// String is the pin as it stands in the file.
func (p Pin) String() string { return pinPrefix + base64.StdEncoding.EncodeToString(p[:]) }

const pinPrefix = "sha256//"

// Header is the field whose values have a bucket each; empty with the other
// keys. Case does not count in it.
func (r *RateLimit) Header() string {
	name, _ := strings.CutPrefix(r.Key, headerKey)
	if name == r.Key {
		return ""
	}
	return name
}

type sizeUnit struct {
	name   string
	bytes  int64
	binary bool
}

// sizeUnits are the units of sizes, the large ones first.
func sizeUnits() []sizeUnit {
	return []sizeUnit{
		{"TiB", 1 << 40, true}, {"GiB", 1 << 30, true}, {"MiB", mib, true}, {"KiB", kib, true},
		{"TB", 1e12, false}, {"GB", 1e9, false}, {"MB", 1e6, false}, {"kB", 1e3, false},
		{"B", 1, true},
	}
}

func parseDuration(s string) (d Duration, fact, hint string) {
	v, err := time.ParseDuration(s)
	switch {
	case err == nil && !isNumber(s):
		return Duration{v}, "", ""
	case isNumber(s):
		return d, fmt.Sprintf("%s has no unit", quote(s)), fmt.Sprintf("write %q", s+"s")
	}
	if days, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16); err == nil {
		return d, quote(s) + " is in days", fmt.Sprintf(`write "%dh"`, days*24)
	}
	return d, quote(s) + " is not a duration", `write a number and ms, s, m or h, as in "250ms", "30s" or "1h30m"`
}

func parseSize(s string) (v Size, fact, hint string) {
	if isNumber(s) {
		return v, fmt.Sprintf("%s has no unit", quote(s)), fmt.Sprintf("write %q", s+"B") + ` for bytes, or use KiB, MiB, GiB`
	}
	const how = `write a number and B, KiB, MiB or GiB (1024), or kB, MB or GB (1000), as in "10MiB"`
	for _, u := range sizeUnits() {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		switch {
		case err != nil && isNumber(digits) && !strings.Contains(digits, "."):
			return v, quote(s) + " is too large", how
		case err != nil:
			return v, quote(s) + " is not a size", how
		case n > math.MaxInt64/u.bytes || n < math.MinInt64/u.bytes:
			return v, quote(s) + " is too large", how
		}
		return Size{n * u.bytes}, "", ""
	}
	return v, quote(s) + " is not a size", how
}

func parsePin(s string) (p Pin, ok bool) {
	encoded, ok := strings.CutPrefix(s, pinPrefix)
	if !ok {
		return p, false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != len(p) || strings.ContainsAny(encoded, "\r\n") {
		return p, false
	}
	return Pin(raw), true
}

func parseMode(s string) (m FileMode, ok bool) {
	if len(s) < 3 || len(s) > 4 || (len(s) == 4 && s[0] != '0') {
		return m, false
	}
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return m, false
	}
	return FileMode{fs.FileMode(v)}, true
}

// isNumber reports whether s is a number and nothing else.
func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && strings.Trim(s, "+-.0123456789eE_") == ""
}

// quote shows what somebody wrote: quoted, without controls, and cut.
func quote(s string) string {
	const most = 80
	if runes := []rune(s); len(runes) > most {
		return strconv.Quote(string(runes[:most])) + "…"
	}
	return strconv.Quote(s)
}
