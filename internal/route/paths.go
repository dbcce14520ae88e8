package route

import (
	"slices"
	"strings"
)

// paths holds the rules of one host, by prefix, twice: as requests carry them and
// with escapes resolved.
type paths struct{ raw, decoded tree }

// tree is a list of prefixes, sorted, each with a link to the longest one that it
// begins with. So those that a path begins with are all on one chain, whose
// longest member is found by a binary search.
type tree []node

type node struct {
	prefix  string
	parent  int // -1: none
	choices []choice
}

// choice is one rule among those with the same prefix.
type choice struct {
	rule    int
	methods []string // empty: any
}

func (c *choice) allows(method []byte) bool {
	if len(c.methods) == 0 {
		return true
	}
	for _, m := range c.methods {
		if m == string(method) {
			return true
		}
	}
	return false
}

func newPaths(rules []compiledRule) *paths {
	return &paths{
		raw:     newTree(rules, func(r compiledRule) string { return r.raw }),
		decoded: newTree(rules, func(r compiledRule) string { return r.decoded }),
	}
}

func newTree(rules []compiledRule, prefix func(compiledRule) string) tree {
	choices := make(map[string][]choice)
	for _, r := range rules {
		choices[prefix(r)] = append(choices[prefix(r)], choice{r.index, r.methods})
	}
	t := make(tree, 0, len(choices))
	for p, c := range choices {
		t = append(t, node{prefix: p, choices: c})
	}
	slices.SortFunc(t, func(a, b node) int { return strings.Compare(a.prefix, b.prefix) })
	for i := range t {
		parent := i - 1
		for parent >= 0 && !strings.HasPrefix(t[i].prefix, t[parent].prefix) {
			parent = t[parent].parent
		}
		t[i].parent = parent
	}
	return t
}

// each calls f with the rules of every prefix that covers path, the longest
// first, until f returns false.
func (t tree) each(path []byte, f func([]choice) bool) {
	low, high := 0, len(t) // t[:low] <= path < t[high:]
	for low < high {
		mid := int(uint(low+high) / 2)
		if t[mid].prefix <= string(path) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	for i := low - 1; i >= 0; i = t[i].parent {
		if covers(t[i].prefix, path) && !f(t[i].choices) {
			return
		}
	}
}

// covers reports whether path lies at or below prefix. The empty one covers all,
// "*" too.
func covers(prefix string, path []byte) bool {
	n := len(prefix)
	return n == 0 || len(path) >= n && string(path[:n]) == prefix && (len(path) == n || path[n] == '/')
}
