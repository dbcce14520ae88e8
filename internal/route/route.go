// Package route finds the rule that an exchange falls under, by its listener, host, path and method.
package route

import (
	"bytes"
	"fmt"
	"slices"
)

// Rule says which exchanges it is for. What is empty holds for any.
type Rule struct {
	Listener string
	// Host is a name without port, or "*." and a name: any name below that one,
	// however deep, but not itself. IPv6 addresses stand in brackets.
	Host string
	// PathPrefix covers whole segments: "/bank" is for /bank and /bank/x, not for
	// /banking. A slash at its end makes no difference.
	PathPrefix string
	// Methods are exact, but for GET, which brings HEAD with it.
	Methods []string
}

// Verdict says how a Match went.
type Verdict uint8

const (
	Found            Verdict = iota
	NotFound                 // no rule is for this listener, host and path
	MethodNotAllowed         // there are such rules, but for other methods; see Table.Allowed
	Ambiguous                // another reading of the path falls under another rule
)

func (v Verdict) String() string {
	switch v {
	case Found:
		return "found"
	case NotFound:
		return "not found"
	case MethodNotAllowed:
		return "method not allowed"
	case Ambiguous:
		return "ambiguous"
	}
	return "unknown"
}

// Table is a compiled list of rules. It never changes, so any number of
// goroutines may use it.
type Table struct {
	rules  int
	byName map[string]*scope // of the listeners that a rule names
	others *scope            // of every other listener
}

// scope is what callers of one listener can reach: the rules that name it and
// those that name none.
type scope struct {
	exact    map[string]*paths
	wildcard map[string]*paths // by what follows "*."
	any      *paths            // of the rules without a host
	prefixes bool              // some rule has a prefix: only then can the reading of a path matter
}

// Compile prepares rules for matching; their places in the slice are what Match
// returns. It refuses a host or prefix that no exchange could ever match.
func Compile(rules []Rule) (*Table, error) {
	compiled := make([]compiledRule, len(rules))
	t := &Table{rules: len(rules), byName: make(map[string]*scope)}
	for i, r := range rules {
		c, err := compileRule(r)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", Name(r), err)
		}
		c.index = i
		compiled[i] = c
	}
	t.others = newScope(compiled, "")
	for _, r := range rules {
		if _, ok := t.byName[r.Listener]; !ok && r.Listener != "" {
			t.byName[r.Listener] = newScope(compiled, r.Listener)
		}
	}
	return t, nil
}

// Len returns the number of rules.
func (t *Table) Len() int { return t.rules }

// Match finds the rule for an exchange. Of the rules that are for its listener,
// host, path and method, one with that very host goes before one with a wildcard
// (the longest first), and that before one with no host; then the longest prefix
// wins, then the order of the rules. The rule is -1 unless the verdict is Found.
//
// host may have upper-case letters, a port and a dot at its end. path is as it
// came, without the query. Where a reader could take the path for another one, by
// resolving escapes, backslashes, doubled slashes or dot segments, and that one
// has another rule or none, the verdict is Ambiguous: see reading.go.
//
// Match allocates nothing, save for a doubtful path of more than 1,024 bytes.
func (t *Table) Match(listener string, host, path, method []byte) (rule int, v Verdict) {
	s := t.scope(listener)
	rule, v = s.find(host, path, method, false)
	if s.prefixes && doubtful(path) && s.readsOtherwise(host, path, method, rule, v) {
		return -1, Ambiguous
	}
	return rule, v
}

// Allowed returns the methods that rules for this listener, host and path name,
// sorted: what belongs into the Allow field when Match said MethodNotAllowed.
func (t *Table) Allowed(listener string, host, path []byte) []string {
	s := t.scope(listener)
	var methods []string
	s.each(host, func(p *paths) bool {
		p.raw.each(path, func(choices []choice) bool {
			for _, c := range choices {
				methods = append(methods, c.methods...)
			}
			return true
		})
		return true
	})
	slices.Sort(methods)
	return slices.Compact(methods)
}

// NamesHost reports whether a rule for listener names this host, itself or by a
// wildcard. Rules for any host do not count.
func (t *Table) NamesHost(listener string, host []byte) bool {
	s := t.scope(listener)
	named := false
	s.each(host, func(p *paths) bool {
		named = named || p != s.any
		return !named
	})
	return named
}

func (t *Table) scope(listener string) *scope {
	if s, ok := t.byName[listener]; ok {
		return s
	}
	return t.others
}

// find is Match without the question of readings; decoded says that the escapes
// of path are resolved.
func (s *scope) find(host, path, method []byte, decoded bool) (rule int, v Verdict) {
	rule, v = -1, NotFound
	s.each(host, func(p *paths) bool {
		tree := p.raw
		if decoded {
			tree = p.decoded
		}
		tree.each(path, func(choices []choice) bool {
			v = MethodNotAllowed
			for _, c := range choices {
				if c.allows(method) {
					rule, v = c.rule, Found
					return false
				}
			}
			return true
		})
		return v != Found
	})
	return rule, v
}

// each calls f for the paths of host, the most specific first, until f returns
// false. host is as a request has it.
func (s *scope) each(host []byte, f func(*paths) bool) {
	if len(s.exact)+len(s.wildcard) > 0 {
		host = withoutPort(host)
		more := true
		if len(host) > maxHost {
			// No rule names it.
		} else if hasCapitals(host) {
			more = s.eachNamedInLowerCase(host, f)
		} else {
			more = s.eachNamed(host, f)
		}
		if !more {
			return
		}
	}
	if s.any != nil {
		f(s.any)
	}
}

func (s *scope) eachNamed(host []byte, f func(*paths) bool) (more bool) {
	if p := s.exact[string(host)]; p != nil && !f(p) {
		return false
	}
	if len(s.wildcard) == 0 {
		return true
	}
	for i := 1; i < len(host); i++ { // from 1: a label must stand before the dot
		if host[i] != '.' {
			continue
		}
		if p := s.wildcard[string(host[i+1:])]; p != nil && !f(p) {
			return false
		}
	}
	return true
}

// eachNamedInLowerCase is a function of its own so that the usual host, which has
// no capitals, does not pay for the buffer.
func (s *scope) eachNamedInLowerCase(host []byte, f func(*paths) bool) (more bool) {
	var buf [maxHost]byte
	lowered := buf[:len(host)]
	for i, c := range host {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lowered[i] = c
	}
	return s.eachNamed(lowered, f)
}

const maxHost = 253 // characters of the longest name that the DNS holds

func hasCapitals(host []byte) bool {
	for _, c := range host {
		if 'A' <= c && c <= 'Z' {
			return true
		}
	}
	return false
}

// withoutPort returns host without its port and without the dot of the root.
func withoutPort(host []byte) []byte {
	if len(host) > 0 && host[0] == '[' {
		if end := bytes.IndexByte(host, ']'); end > 0 {
			host = host[:end+1]
		}
	} else if colon := bytes.IndexByte(host, ':'); colon >= 0 {
		host = host[:colon]
	}
	return bytes.TrimSuffix(host, []byte("."))
}
