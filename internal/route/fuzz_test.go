package route

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// slowMatch is Match as its comment puts it, without a thought for speed.
func slowMatch(rules []Rule, listener, host, path, method string) (int, Verdict) {
	rule, v := slowFind(rules, listener, host, path, method, false)
	for _, r := range slowReadings(path) {
		if otherRule, other := slowFind(rules, listener, host, r.path, method, r.decoded); otherRule != rule || other != v {
			return -1, Ambiguous
		}
	}
	return rule, v
}

func slowFind(rules []Rule, listener, host, path, method string, decoded bool) (int, Verdict) {
	host = strings.ToLower(host)
	if strings.HasPrefix(host, "[") {
		if end := strings.Index(host, "]"); end > 0 {
			host = host[:end+1]
		}
	} else {
		host, _, _ = strings.Cut(host, ":")
	}
	host = strings.TrimSuffix(host, ".")
	best, bestRank, v := -1, []int(nil), NotFound
	for i, r := range rules {
		prefix := strings.TrimSuffix(r.PathPrefix, "/")
		if decoded {
			prefix, _ = url.PathUnescape(prefix)
		}
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
		if v == NotFound {
			v = MethodNotAllowed
		}
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) && (method != "HEAD" || !slices.Contains(r.Methods, "GET")) {
			continue
		}
		if rank := []int{hostRank, len(prefix), -i}; best < 0 || slices.Compare(rank, bestRank) > 0 {
			best, bestRank, v = i, rank, Found
		}
	}
	return best, v
}

type slowReading struct {
	path    string
	decoded bool
}

func slowReadings(path string) []slowReading {
	readings := []slowReading{{path, false}}
	if strings.Contains(path, "%") {
		sep := strings.NewReplacer("%2f", "\x00f", "%2F", "\x00F", "%5c", "\x00c", "%5C", "\x00C")
		back := strings.NewReplacer("\x00f", "%2f", "\x00F", "%2F", "\x00c", "%5c", "\x00C", "%5C")
		if !strings.Contains(path, "\x00") && !strings.Contains(path, "%00") { // the marks above would be mistaken
			readings = append(readings, slowReading{back.Replace(slowUnescape(sep.Replace(path))), true})
		}
		readings = append(readings, slowReading{slowUnescape(path), true}, slowReading{slowUnescape(slowUnescape(path)), true})
	}
	each := func(changes ...func(string) string) {
		for _, r := range slices.Clone(readings) {
			for _, change := range changes {
				readings = append(readings, slowReading{change(r.path), r.decoded})
			}
		}
	}
	each(func(p string) string { return strings.ReplaceAll(p, `\`, "/") })
	each(slowMerge)
	each(func(p string) string { return slowResolve(p, false) }, func(p string) string { return slowResolve(p, true) })
	each(slowMerge)
	return readings
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

func slowMerge(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

func slowResolve(p string, parameters bool) string {
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
	}
	for _, path := range []string{
		"/", "/a", "/a/b/c", "/ab", "/a-b/", "/a%20b", "/a%2fb", "/a/../b", "/a//b", `/a\b`, "/a/%252e%252e/b", "/a/..;x/b", "/%61", "/x//..//a", "/a%2F..%5cb%2e",
	} {
		f.Add("http", "y.x.h:80", path, "GET", uint16(1<<11-1))
		f.Add("other", "H", path, "HEAD", uint16(0x555))
	}
	f.Fuzz(func(t *testing.T, listener, host, path, method string, pick uint16) {
		if path != "*" && !strings.HasPrefix(path, "/") || len(path) > 2000 || len(host) > maxHost {
			t.Skip("no request has this path or host")
		}
		for _, c := range []byte(path + host) {
			if c <= ' ' || c >= 0x7f {
				t.Skip("http1 refuses it")
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
		wantRule, want := slowMatch(picked, listener, host, path, method)
		if rule != wantRule || v != want {
			t.Errorf("rules %+v\nMatch(%q, %q, %q, %q) = %d, %v; want %d, %v", picked, listener, host, path, method, rule, v, wantRule, want)
		}
	})
}
