package route

import (
	"slices"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

// paths holds the rules of one host, by prefix, for each spelling.
type paths [spellings]tree

// spelling says how the prefixes of a tree are written.
type spelling uint8

const (
	decoded   spelling = 1 << iota // escapes are resolved; without, they are as requests carry them
	folded                         // in lower case
	spellings = 4
)

func (s spelling) of(prefix string) string {
	if s&decoded != 0 {
		prefix = string(unescape(nil, []byte(prefix), everything))
	}
	if s&folded != 0 {
		prefix = string(lower(nil, []byte(prefix)))
	}
	return prefix
}

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

// allows reports whether the rule takes the method. One that echoes has to be named.
func (c *choice) allows(method []byte) bool {
	if len(c.methods) == 0 {
		return !http1.Echoes(method)
	}
	for _, m := range c.methods {
		if m == string(method) {
			return true
		}
	}
	return false
}

// newPaths makes the trees of rules. Most prefixes are spelt in one way only, and have one tree.
func newPaths(rules []compiledRule) *paths {
	var p paths
	for i := range p {
		p[i] = p.same(rules, spelling(i))
		if p[i] == nil {
			p[i] = newTree(rules, spelling(i))
		}
	}
	return &p
}

// same returns the tree of an earlier spelling in which all prefixes are what they are in s; nil: there is none.
func (p *paths) same(rules []compiledRule, s spelling) tree {
	for earlier := range s {
		if !slices.ContainsFunc(rules, func(r compiledRule) bool { return earlier.of(r.prefix) != s.of(r.prefix) }) {
			return p[earlier]
		}
	}
	return nil
}

func newTree(rules []compiledRule, s spelling) tree {
	choices := make(map[string][]choice)
	for _, r := range rules {
		prefix := s.of(r.prefix)
		choices[prefix] = append(choices[prefix], choice{r.index, r.methods})
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

// find returns the rules of the longest prefix that covers path; nil: none does.
func (t tree) find(path []byte) []choice {
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
		if covers(t[i].prefix, path) {
			return t[i].choices
		}
	}
	return nil
}

// covers reports whether path lies at or below prefix. The empty one covers all,
// "*" too.
func covers(prefix string, path []byte) bool {
	n := len(prefix)
	return n == 0 || len(path) >= n && string(path[:n]) == prefix && (len(path) == n || path[n] == '/')
}
