package route

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// slowMatch is Match as its comment puts it, without a thought for speed.
func slowMatch(rules []Rule, listener, host, path, method string) (int, Verdict) {
	rule, v := slowFind(rules, listener, host, path, method, false)
	for _, r := range slowReadings(path) {
		if otherRule, other := slowFind(rules, listener, host, r.path, method, r.decoded); otherRule != rule || other != v {
			return -1, Ambiguous
		}
		if !slowFolds(rules, listener, host, r, method, rule, v) {
			return -1, Ambiguous
		}
	}
	if rule >= 0 && rules[rule].AddPrefix+rules[rule].StripPrefix != "" && strings.HasPrefix(path, "/") {
		r := rules[rule]
		sent := path
		if strip := strings.TrimSuffix(r.StripPrefix, "/"); sent == strip || strings.HasPrefix(sent, strip+"/") {
			sent = sent[len(strip):]
		}
		add := strings.TrimSuffix(r.AddPrefix, "/")
		below := add + strings.TrimPrefix(strings.TrimSuffix(r.PathPrefix, "/"), strings.TrimSuffix(r.StripPrefix, "/"))
		for _, reading := range slowReadings(add + sent) {
			want := below
			if reading.decoded {
				want = slowUnescape(want)
			}
			if strings.Contains(reading.path, "%") && !reading.decoded {
				continue // asked about without escapes
			}
			if reading.path != want && !strings.HasPrefix(reading.path, want+"/") {
				return -1, Ambiguous
			}
		}
	}
	return rule, v
}

// slowCovering returns the rules with the most specific host and the longest prefix.
func slowCovering(rules []Rule, listener, host, path string, spell func(prefix string) string) (found []int) {
	host = strings.ToLower(host)
	if strings.HasPrefix(host, "[") {
		if end := strings.Index(host, "]"); end > 0 {
			host = host[:end+1]
		}
	} else {
		host, _, _ = strings.Cut(host, ":")
	}
	host = strings.TrimSuffix(host, ".")
	var bestRank []int
	for i, r := range rules {
		prefix := spell(strings.TrimSuffix(r.PathPrefix, "/"))
		hostRank := 0
		if suffix, ok := strings.CutPrefix(r.Host, "*"); ok {
			if !strings.HasSuffix(host, suffix) || len(host) == len(suffix) {
				continue
			}
			hostRank = len(suffix)
		} else if r.Host != "" {
			if host != r.Host {
				continue
			}
			hostRank = 1000
		}
		if r.Listener != "" && r.Listener != listener || prefix != "" && path != prefix && !strings.HasPrefix(path, prefix+"/") {
			continue
		}
		switch c := slices.Compare([]int{hostRank, len(prefix)}, bestRank); {
		case found == nil || c > 0:
			found, bestRank = []int{i}, []int{hostRank, len(prefix)}
		case c == 0:
			found = append(found, i)
		}
	}
	return found
}

func slowTakes(r Rule, method string) bool {
	if len(r.Methods) == 0 {
		return !strings.EqualFold(method, "TRACE") && !strings.EqualFold(method, "TRACK")
	}
	return slices.Contains(r.Methods, method) || method == "HEAD" && slices.Contains(r.Methods, "GET")
}

func slowFind(rules []Rule, listener, host, path, method string, decoded bool) (int, Verdict) {
	covering := slowCovering(rules, listener, host, path, func(p string) string {
		if decoded {
			return slowUnescape(p)
		}
		return p
	})
	for _, i := range covering {
		if slowTakes(rules[i], method) {
			return i, Found
		}
	}
	if len(covering) > 0 {
		return -1, MethodNotAllowed
	}
	return -1, NotFound
}

// slowFolds reports whether a server that takes upper case for lower may come to the same rule.
func slowFolds(rules []Rule, listener, host string, r slowReading, method string, rule int, v Verdict) bool {
	covering := slowCovering(rules, listener, host, slowLower(r.path), func(p string) string {
		if r.decoded {
			p = slowUnescape(p)
		}
		return slowLower(p)
	})
	takes := slices.ContainsFunc(covering, func(i int) bool { return slowTakes(rules[i], method) })
	switch v {
	case Found:
		return slices.Contains(covering, rule)
	case MethodNotAllowed:
		return len(covering) > 0 && !takes
	default:
		return len(covering) == 0
	}
}

// slowLower leaves what is not ASCII alone.
func slowLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 32
		}
	}
	return string(b)
}

type slowReading struct {
	path    string
	decoded bool
}

func slowReadings(path string) []slowReading {
	readings := []slowReading{{path, false}}
	if strings.Contains(path, "%") {
		sep := strings.NewReplacer("%2f", "\x01f", "%2F", "\x01F", "%5c", "\x01c", "%5C", "\x01C")
		back := strings.NewReplacer("\x01f", "%2f", "\x01F", "%2F", "\x01c", "%5c", "\x01C", "%5C")
		if !strings.Contains(path, "\x01") && !strings.Contains(path, "%01") { // the marks above would be mistaken
			readings = append(readings, slowReading{back.Replace(slowUnescape(sep.Replace(path))), true})
		}
		readings = append(readings, slowReading{slowUnescape(path), true}, slowReading{slowUnescape(slowUnescape(path)), true},
			slowReading{slowNarrow(slowUnescape(path)), true})
	}
	each := func(changes ...func(string) string) {
		for _, r := range slices.Clone(readings) {
			for _, change := range changes {
				if p := change(r.path); p != r.path {
					readings = append(readings, slowReading{p, r.decoded})
				}
			}
		}
	}
	each(slowEnds...)
	each(func(p string) string { return strings.ReplaceAll(p, `\`, "/") })
	each(slowSegments(func(s string) string { s, _, _ = strings.Cut(s, ";"); return s }))
	each(slowSegments(slowTrim))
	each(slowMerge)
	each(func(p string) string { return slowResolve(p, false) }, func(p string) string { return slowResolve(p, true) })
	each(slowMerge)
	each(slowEnds...)
	return readings
}

var slowEnds = []func(string) string{
	func(p string) string { p, _, _ = strings.Cut(p, "\x00"); return p },
	func(p string) string {
		p, _, _ = strings.Cut(p, "?")
		p, _, _ = strings.Cut(p, "#")
		return p
	},
}

func slowSegments(change func(string) string) func(string) string {
	return func(p string) string {
		segments := strings.Split(p, "/")
		for i := range segments {
			segments[i] = change(segments[i])
		}
		return strings.Join(segments, "/")
	}
}

func slowUnescape(p string) string {
	parts := strings.Split(p, "%")
	out := parts[0]
	for _, part := range parts[1:] {
		if len(part) >= 2 {
			if c, err := url.PathUnescape("%" + part[:2]); err == nil {
				out += c + part[2:]
				continue
			}
		}
		out += "%" + part
	}
	return out
}

// blanksBehind matches white space of ASCII, and of Latin-1 behind ASCII.
var blanksBehind = regexp.MustCompile(`(?s)^(.*?)[\x00-\x20]*$`)

func slowTrim(s string) string {
	blanks := func(s string) string {
		for {
			t := blanksBehind.FindStringSubmatch(s)[1]
			if n := len(t); n > 0 && (t[n-1] == 0x85 || t[n-1] == 0xa0) && (n == 1 || t[n-2] < 0x80) {
				t = t[:n-1]
			}
			if s == t {
				return s
			}
			s = t
		}
	}
	s = blanks(s)
	if s == "." || s == ".." {
		return s
	}
	for {
		t := blanks(strings.TrimRight(s, "."))
		if s == t {
			return s
		}
		s = t
	}
}

// slowNarrow replaces every spelling of an ASCII character by it, one pass from the left: the spellings are made, not parsed.
func slowNarrow(p string) string {
	var b strings.Builder
next:
	for p != "" {
		for spelling, c := range wide() {
			if len(p) >= len(spelling) && (p[:len(spelling)] == spelling || spelling[0] == '%' && strings.EqualFold(p[:len(spelling)], spelling)) {
				b.WriteByte(c)
				p = p[len(spelling):]
				continue next
			}
		}
		b.WriteByte(p[0])
		p = p[1:]
	}
	return b.String()
}

var wide = sync.OnceValue(func() map[string]byte {
	all := make(map[string]byte)
	for c := range byte(128) {
		low := 0x80 | c&0x3f
		all[string([]byte{0xc0 | c>>6, low})] = c
		all[string([]byte{0xe0, 0x80 | c>>6, low})] = c
		all[string([]byte{0xf0, 0x80, 0x80 | c>>6, low})] = c
		all[fmt.Sprintf("%%u%04x", c)] = c
		if c > ' ' && c < 0x7f {
			full := rune(c) - ' ' + 0xff00
			all[string(full)] = c
			all[fmt.Sprintf("%%u%04x", full)] = c
			all[string([]byte{0xf0, 0x80 | byte(full>>12), 0x80 | byte(full>>6)&0x3f, 0x80 | byte(full)&0x3f})] = c
		}
	}
	return all
})

func slowMerge(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

func slowResolve(p string, parameters bool) string {
	if !strings.HasPrefix(p, "/") {
		return p
	}
	var out []string
	segments := strings.Split(p, "/")[1:]
	for i, s := range segments {
		name := s
		if parameters {
			name, _, _ = strings.Cut(s, ";")
		}
		if name == "." || name == ".." {
			if name == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if i == len(segments)-1 {
				out = append(out, "")
			}
			continue
		}
		out = append(out, s)
	}
	return "/" + strings.Join(out, "/")
}

// FuzzMatch: Match agrees with a matcher that tries every rule and every reading.
func FuzzMatch(f *testing.F) {
	rules := []Rule{
		{PathPrefix: "/a"},
		{PathPrefix: "/a/b", Methods: []string{"GET"}},
		{PathPrefix: "/a-b"},
		{PathPrefix: "/a%20b", Methods: []string{"POST", "GET"}},
		{PathPrefix: "/a/c", Listener: "other"},
		{Host: "h", PathPrefix: "/b"},
		{Host: "*.h", PathPrefix: "/a/b/c"},
		{Host: "*.x.h", Methods: []string{"PUT"}},
		{Host: "x.h"},
		{Host: "[::1]", PathPrefix: "/a"},
		{PathPrefix: "/", Methods: []string{"GET", "POST"}},
		{PathPrefix: "/A/d", AddPrefix: "/v2"},
		{PathPrefix: "/a/e", StripPrefix: "/a", AddPrefix: "/t%20a/"},
		{Host: "p.h", AddPrefix: "/p"},
		{PathPrefix: "/a/f", StripPrefix: "/a"},
	}
	for _, path := range []string{
		"/", "/a", "/a/b/c", "/ab", "/a-b/", "/a%20b", "/a%2fb", "/a/../b", "/a//b", `/a\b`, "/a/%252e%252e/b", "/a/..;x/b", "/%61", "/x//..//a", "/a%2F..%5cb%2e",
		"/a/e/../../x", "/a/e/..;/..;/x", "/../x", "/%2e%2e/x", "/..%2fx", "/A/D/x", "/a;x/b", "/;/a", "/a./b%20", "/a%00x", "/a%3fx", "/A/d/.. /x",
		"/a/e/x%2fy/../../z", "/x/%2e%2e%20/..%00",
		"/%c0%af..%c0%af", "/x/%u002e%u002e/a", "/x%ef%bc%8fa", "/a%09", "/a%a0", "/x/%e0%80%ae./a", "/a/e/../../a/e/x",
	} {
		f.Add("http", "y.x.h:80", path, "GET", uint16(1<<15-1))
		f.Add("other", "H", path, "HEAD", uint16(0x555))
		f.Add("http", "p.h", path, "TRACE", uint16(0x3000))
	}
	f.Fuzz(func(t *testing.T, listener, host, path, method string, pick uint16) {
		if path != "*" && !strings.HasPrefix(path, "/") || len(path) > 2000 || len(host) > maxHost {
			return // no request has this path or host
		}
		for _, c := range []byte(path + host) {
			if c <= ' ' || c >= 0x7f || c == '?' || c == '#' {
				return // http1 refuses it
			}
		}
		var picked []Rule
		for i, r := range rules {
			if pick>>i&1 == 1 {
				picked = append(picked, r)
			}
		}
		table := compile(t, picked...)
		rule, v := table.match(listener, host, path, method)
		if len(path) > 300 {
			return // it may have more readings than are looked at
		}
		wantRule, want := slowMatch(picked, listener, host, path, method)
		if rule != wantRule || v != want {
			t.Errorf("rules %+v\nMatch(%q, %q, %q, %q) = %d, %v; want %d, %v", picked, listener, host, path, method, rule, v, wantRule, want)
		}
	})
}

// servers read paths as programs in the field do, each from end to end.
var servers = map[string]func(string) string{
	"resolves escapes, merges, resolves dots": func(p string) string { return slowResolve(slowMerge(slowUnescape(p)), false) },
	"resolves dots, then escapes":             func(p string) string { return slowUnescape(slowResolve(p, false)) },
	"resolves escapes twice":                  func(p string) string { return slowResolve(slowUnescape(slowUnescape(p)), false) },
	"Java": func(p string) string {
		p = slowSegments(func(s string) string { s, _, _ = strings.Cut(s, ";"); return s })(p)
		return slowResolve(slowMerge(slowUnescape(p)), false)
	},
	"Java, parameters after escapes": func(p string) string {
		return slowResolve(slowMerge(slowSegments(func(s string) string { s, _, _ = strings.Cut(s, ";"); return s })(slowUnescape(p))), false)
	},
	"Windows": func(p string) string {
		p = strings.ReplaceAll(slowUnescape(p), `\`, "/")
		p = slowSegments(slowTrim)(p)
		return slowLower(slowResolve(slowMerge(p), false))
	},
	"overlong": func(p string) string { return slowResolve(slowMerge(slowNarrow(slowUnescape(p))), false) },
	"cuts white space": func(p string) string {
		return slowResolve(strings.TrimRight(slowUnescape(p), "\x00\t\n\v\f\r\x1c\x1d\x1e\x1f "), false)
	},
	"C": func(p string) string {
		p, _, _ = strings.Cut(slowUnescape(p), "\x00")
		return slowResolve(slowMerge(p), false)
	},
	"C behind one that resolves dots": func(p string) string {
		p, _, _ = strings.Cut(slowResolve(slowUnescape(p), false), "\x00")
		return slowMerge(p)
	},
	"takes the rest for a query": func(p string) string {
		p, _, _ = strings.Cut(slowUnescape(p), "?")
		return slowResolve(p, false)
	},
}

// FuzzServers: what one of these servers serves is never another rule's, and never outside of an added prefix.
func FuzzServers(f *testing.F) {
	rules := []Rule{{PathPrefix: "/public"}, {PathPrefix: "/admin"}, {PathPrefix: "/public/inner", AddPrefix: "/t"}, {Host: "added", AddPrefix: "/t"}, {}}
	table, err := Compile(rules)
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{
		"/public/x", "/public/..%2fadmin", "/PUBLIC/x", "/public;x/../admin", "/../out", "/%2e%2e/out", "/x/%2e%2e;/..%00", "/public/inner/..;/..", "/x/.. /../admin. ",
		"/%c0%ae./out", "/public/%u002e./admin", "/%ef%bc%8e%ef%bc%8e/out", "/admin%0a", "/%e0%81%a1dmin",
	} {
		f.Add("h", path)
		f.Add("added", path)
	}
	f.Fuzz(func(t *testing.T, host, path string) {
		if !strings.HasPrefix(path, "/") || len(path) > 1000 {
			return // no request has this path
		}
		for _, c := range []byte(path) {
			if c <= ' ' || c >= 0x7f || c == '?' || c == '#' {
				return // http1 refuses it
			}
		}
		rule, v := table.match("http", host, path, "GET")
		if v != Found {
			return
		}
		sent := rules[rule].AddPrefix + path
		for name, read := range servers {
			if got := read(sent); rules[rule].AddPrefix != "" {
				if want := rules[rule].AddPrefix + rules[rule].PathPrefix; got != want && !strings.HasPrefix(got, want+"/") {
					t.Errorf("%s: %q of rule %d is sent as %q, and serves %q", name, path, rule, sent, got)
				}
			} else if other, _ := slowFind(rules, "http", host, got, "GET", true); other != rule {
				t.Errorf("%s: %q of rule %d serves %q, which is rule %d's", name, path, rule, got, other)
			}
		}
	})
}
