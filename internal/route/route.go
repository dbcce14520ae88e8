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
	// Methods are exact, but for GET, which brings HEAD with it. Without any, all are taken but TRACE and TRACK.
	Methods []string

	// StripPrefix is taken off the path of what is sent, and AddPrefix put before what is left; see http1.RequestRewrite. No reading of
	// the path that is sent leaves AddPrefix, or what is left of PathPrefix behind it.
	StripPrefix, AddPrefix string
}

// Verdict says how a Match went.
type Verdict uint8

const (
	Found            Verdict = iota
	NotFound                 // no rule is for this listener, host and path
	MethodNotAllowed         // there are such rules, but for other methods; see Table.Allowed
	Ambiguous                // another reading of the path falls under another rule, or one of what is sent leaves the rule's prefixes
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
	rules  []compiledRule
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
	capitals bool              // some prefix has capitals
}

// Compile prepares rules for matching; their places in the slice are what Match
// returns. It refuses a host or prefix that no exchange could ever match.
func Compile(rules []Rule) (*Table, error) {
	compiled := make([]compiledRule, len(rules))
	t := &Table{rules: compiled, byName: make(map[string]*scope)}
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
func (t *Table) Len() int { return len(t.rules) }

// Match finds the rule for an exchange. Of the rules that are for its listener, host and path, those with that very host go before those
// with a wildcard (the longest first), and those before the ones with no host; then the longest prefix wins. Of the rules with the same
// host and prefix, the first that takes the method is the one; if none does, the verdict is MethodNotAllowed, whatever there is with a
// shorter prefix. The rule is -1 unless the verdict is Found.
//
// host may have upper-case letters, a port and a dot at its end. path is as it
// came, without the query. Where a reader could take the path for another one
// that has another rule or none, or what is sent for a path outside of the rule's prefixes, the verdict is Ambiguous: see reading.go.
//
// Match allocates nothing, save for a doubtful path of more than 1,024 bytes.
func (t *Table) Match(listener string, host, path, method []byte) (rule int, v Verdict) {
	s := t.scope(listener)
	rule, v = s.find(host, path, method, 0)
	d := doubts(path)
	if d == plain && s.capitals {
		d = cased
	}
	if d == plain || !s.prefixes && (rule < 0 || t.rules[rule].below == "") {
		return rule, v
	}
	if s.prefixes && s.readsOtherwise(d, host, path, method, rule, v) {
		return -1, Ambiguous
	}
	if rule >= 0 && d == doubtful && t.rules[rule].leaves(path) {
		return -1, Ambiguous
	}
	return rule, v
}

// Allowed returns the methods that are taken for this listener, host and path,
// sorted: what belongs into the Allow field when Match said MethodNotAllowed.
func (t *Table) Allowed(listener string, host, path []byte) []string {
	var methods []string
	for _, c := range t.scope(listener).choices(host, path, 0) {
		if len(c.methods) == 0 {
			methods = append(methods, "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
		}
		methods = append(methods, c.methods...)
	}
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

// find is Match without the question of readings.
func (s *scope) find(host, path, method []byte, how spelling) (rule int, v Verdict) {
	choices := s.choices(host, path, how)
	if choices == nil {
		return -1, NotFound
	}
	for i := range choices {
		if choices[i].allows(method) {
			return choices[i].rule, Found
		}
	}
	return -1, MethodNotAllowed
}

// choices returns the rules with the most specific host and the longest prefix for host and path.
func (s *scope) choices(host, path []byte, how spelling) (found []choice) {
	s.each(host, func(p *paths) bool {
		found = p[how].find(path)
		return found == nil
	})
	return found
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
