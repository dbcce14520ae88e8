package config

import (
	"fmt"
	"strconv"
	"strings"
)

// reader collects the settings of all files, by the schema, and every problem
// with them.
type reader struct {
	schema    *node
	settings  map[string]*placed // by dotted key
	order     []*placed
	tables    map[string]named  // by dotted key: tables with a name, and routes
	opened    map[string]Origin // by dotted key: every table that has a header or braces
	routes    int
	doubtful  map[string]bool // tables (two steps of a path, or one) with something in them that was not understood; "": any of them
	misplaced []string        // first names that are unknown and like no other
	problems  Problems
	folder    string // where relative paths of the current file start

	reported map[string]bool // keys of the current file that need no second complaint
	element  []string        // the route that is open in the current file
	twice    bool            // a key of the current file was there before
}

// placed is a setting with its value, before the value is looked at.
type placed struct {
	path   []string
	leaf   *setting
	val    value
	at     Origin // of the key
	folder string
}

// named is a table with a name of the operator's.
type named struct {
	path []string
	at   Origin
}

func newReader() *reader {
	return &reader{schema: tree(), settings: make(map[string]*placed), tables: make(map[string]named), opened: make(map[string]Origin), doubtful: make(map[string]bool)}
}

func (r *reader) problem(at Origin, path []string, fact, hint string) {
	r.problems = append(r.problems, Problem{Origin: at, Key: dotted(path), Fact: fact, Hint: hint})
}

// misread reports something that has no place in the configuration. What seems
// to be missing from its table may be just that.
func (r *reader) misread(at Origin, path []string, fact, hint string) {
	r.problem(at, path, fact, hint)
	table := path[:min(2, len(path)-1)]
	if _, known := r.schema.children[path[0]]; known && len(path) == 1 {
		table = path
	}
	r.doubt(table)
}

// doubt notes that something in the table was not understood: nothing is
// concluded from what it seems to lack. Without a name it may be any table.
func (r *reader) doubt(table []string) { r.doubtful[dotted(table)] = true }

// misnamed reports a first name that is not known. What stands there may be
// what was meant by a name like it, or by one with such a key; other tables are
// not in doubt.
func (r *reader) misnamed(at Origin, path []string) {
	first := path[0]
	r.problem(at, path[:1], "unknown key", r.unknownHint(first, r.schema, true))
	if near := nearest(first, r.schema.known()); near != "" {
		if len(path) == 1 || r.schema.children[near].any == nil || near == "route" || r.schema.children[near].any.leaf != nil {
			r.doubt([]string{near})
			return
		}
		meant := []string{near, path[1]}
		r.note(meant, at)
		r.doubt(meant)
		return
	}
	r.misplaced = append(r.misplaced, first)
	for _, s := range schema() {
		if strings.HasSuffix(s.pattern, "."+first) {
			kind, _, _ := strings.Cut(s.pattern, ".")
			r.doubt([]string{kind})
		}
	}
}

// flawed takes in a place that is not TOML, below the table.
func (r *reader) flawed(f *flaw, table []string) {
	r.problems = append(r.problems, f.problem)
	switch _, known := r.schema.children[f.kind]; {
	case f.lost == nothing:
	case f.lost == aKey && table != nil:
		r.doubt(table[:min(2, len(table))])
	case f.lost == aHeader && known:
		r.doubt([]string{f.kind})
	default:
		r.doubt(nil)
	}
}

// understood reports whether everything in the table of path was.
func (r *reader) understood(path ...string) bool {
	return !r.doubtful[""] && !r.doubtful[path[0]] && !r.doubtful[dotted(path[:min(2, len(path))])]
}

// read takes in the statements of one file.
func (r *reader) read(folder string, doc []statement) {
	r.folder, r.element, r.twice, r.reported = folder, nil, false, make(map[string]bool)
	var table []string
	usable := true
	for _, s := range doc {
		if s.flaw != nil {
			r.flawed(s.flaw, table)
			usable = usable && s.flaw.lost != aHeader
			continue
		}
		if !s.header {
			if usable {
				r.pair(table, s.pair)
			}
			continue
		}
		table, usable = r.header(s)
	}
}

// header opens a table and reports whether what stands in it can be read.
func (r *reader) header(s statement) (table []string, usable bool) {
	if s.path[0] != "route" {
		if s.element {
			if n, ok := r.resolve(s.path, s.at); ok {
				r.misread(s.at, s.path, "is not a list", "write it in single brackets: ["+headerOf(s.path, n)+"]")
			}
			return nil, false
		}
		_, usable = r.open(s.path, s.at)
		return s.path, usable
	}
	switch {
	case s.element && len(s.path) == 1:
		r.routes++
		r.element = []string{"route", strconv.Itoa(r.routes)}
		_, usable = r.open(r.element, s.at)
		return r.element, usable
	case s.element:
		r.misread(s.at, s.path, "is not a list", "write it in single brackets: ["+dotted(s.path)+"]")
		return nil, false
	case len(s.path) == 1:
		r.misread(s.at, s.path, "is a list", "write [[route]], once for each route")
		return nil, false
	case r.element == nil:
		r.misread(s.at, s.path, "stands before any route", "write [[route]] above it")
		return nil, false
	}
	table = append(r.element[:2:2], s.path[1:]...)
	_, usable = r.open(table, s.at)
	return table, usable
}

// open notes that the table at path exists.
func (r *reader) open(path []string, at Origin) (*node, bool) {
	n, ok := r.resolve(path, at)
	if ok && n.leaf != nil {
		r.misread(at, path, "is not a table", "write "+path[len(path)-1]+" = "+n.leaf.kind.example())
		return nil, false
	}
	if ok {
		r.note(path, at)
		r.opened[dotted(path)] = at
	}
	return n, ok
}

// pair takes in a key with its value, below the table.
func (r *reader) pair(table []string, p pair) {
	path := append(table[:len(table):len(table)], p.path...)
	if path[0] == "route" && len(table) == 0 {
		r.routeList(path, p)
		return
	}
	n, ok := r.resolve(path, p.at)
	switch {
	case !ok:
	case n.leaf == nil && p.val.shape == aTable:
		r.note(path, p.at)
		r.opened[dotted(path)] = p.at
		for _, inner := range p.val.pairs {
			r.pair(path, inner)
		}
	case n.leaf == nil:
		r.notATable(path, p, n)
	case p.val.shape == aTable:
		r.misread(p.at, path, "is not a table", "write "+path[len(path)-1]+" = "+n.leaf.kind.example())
	default:
		r.note(path, p.at)
		r.set(&placed{path: path, leaf: n.leaf, val: p.val, at: p.at, folder: r.folder})
	}
}

// routeList takes in route = [{…}, {…}], the other way to write [[route]].
func (r *reader) routeList(path []string, p pair) {
	if len(path) > 1 || p.val.shape != anArray {
		r.misread(p.at, path[:1], "is a list", "write [[route]], once for each route")
		return
	}
	for _, item := range p.val.items {
		if item.shape != aTable {
			r.misread(item.at, path, "has an element that is not a table", `write [[route]], once for each route`)
			continue
		}
		r.routes++
		element := []string{"route", strconv.Itoa(r.routes)}
		if _, ok := r.open(element, item.at); ok {
			for _, inner := range item.pairs {
				r.pair(element, inner)
			}
		}
	}
}

// notATable reports a plain value where a table belongs. Somebody who wrote
// [upstream] and url below it left out the name.
func (r *reader) notATable(path []string, p pair, n *node) {
	last := path[len(path)-1]
	if n.any == nil && len(path) == 2 {
		if _, known := n.children[last]; known {
			r.misread(p.at, path, path[0]+" has tables with names in it", "write ["+path[0]+".default] above it")
			return
		}
		if near := nearest(last, n.known()); near != "" {
			r.misread(p.at, path, path[0]+" has tables with names in it", "write ["+path[0]+".default] above it, and "+near+" = …")
			return
		}
	}
	r.misread(p.at, path, "is a table", "write ["+headerOf(path, n)+"] on a line of its own")
}

// headerOf is what stands in the brackets for the table n at path.
func headerOf(path []string, n *node) string {
	if n.any != nil && !n.freeform() {
		return dotted(path) + ".NAME"
	}
	return tableName(path)
}

func (r *reader) set(p *placed) {
	key := dotted(p.path)
	if before, twice := r.settings[key]; twice {
		r.twice = true
		r.problem(p.at, p.path, "is set twice; the other place is "+before.at.String(), "keep one of the two")
		return
	}
	r.settings[key] = p
	r.order = append(r.order, p)
}

// resolve finds the place of path in the schema and reports what is not known
// or not supported, once.
func (r *reader) resolve(path []string, at Origin) (*node, bool) {
	n := r.schema
	for i, step := range path {
		if n.leaf != nil {
			r.misread(at, path[:i], "is not a table", "write "+path[i-1]+" = "+n.leaf.kind.example())
			return nil, false
		}
		next := n.children[step]
		if next == nil && n.any != nil {
			next = n.any
			if !r.name(path[:i+1], at, n) {
				return nil, false
			}
		}
		if next == nil && i == 0 {
			if r.once(path[:1]) {
				r.misnamed(at, path)
			}
			return nil, false
		}
		if next == nil {
			if r.once(path[:i+1]) {
				r.misread(at, path[:i+1], "unknown key", r.unknownHint(step, n, false))
			}
			return nil, false
		}
		if next.leaf != nil && next.leaf.later != "" {
			if r.once(path[:i+1]) {
				r.misread(at, path[:i+1], "not supported in this version", next.leaf.later)
			}
			return nil, false
		}
		n = next
	}
	return n, true
}

// name checks a name of the operator's choice, the last step of path.
func (r *reader) name(path []string, at Origin, n *node) bool {
	last, isRoute := path[len(path)-1], path[0] == "route" && len(path) == 2
	var fact, hint string
	switch {
	case isRoute:
	case !n.freeform():
		fact, hint = checkTableName(last)
	case n.any.leaf.checkName != nil:
		fact, hint = n.any.leaf.checkName(last)
	}
	if fact != "" {
		if strings.Contains(last, "@") { // a password may stand before it
			path = path[:len(path)-1]
		}
		if r.once(path) {
			r.misread(at, path, fact, hint)
		}
		return false
	}
	return true
}

// note remembers the table with a name, or the route, that path leads through.
func (r *reader) note(path []string, at Origin) {
	if len(path) < 2 {
		return
	}
	if n := r.schema.children[path[0]]; n == nil || n.any == nil {
		return
	}
	key := dotted(path[:2])
	if _, known := r.tables[key]; !known {
		r.tables[key] = named{path[:2:2], at}
	}
}

func (r *reader) once(path []string) bool {
	key := dotted(path)
	if r.reported[key] {
		return false
	}
	r.reported[key] = true
	return true
}

// unknownHint looks for what was meant: a near name in the same table, or a key
// of the same name elsewhere.
func (r *reader) unknownHint(step string, n *node, top bool) string {
	if near := nearest(step, n.known()); near != "" {
		return `did you mean "` + near + `"?`
	}
	var tables []string
	for _, s := range schema() {
		if s.later == "" && strings.HasSuffix(s.pattern, "."+step) {
			tables = append(tables, s.table())
		}
	}
	switch {
	case len(tables) > 0:
		return fmt.Sprintf("%s is a key of %s", step, strings.Join(tables, ", "))
	case top:
		return "the tables are " + strings.Join(n.known(), ", ")
	}
	return "the keys here are " + strings.Join(n.known(), ", ")
}

// dotted writes a path as one would in the file. Routes are numbered:
// route[1].host.
func dotted(path []string) string { return join(path, bareOrQuoted) }

// plain is dotted without quotes, for programs.
func plain(path []string) string { return join(path, func(step string) string { return step }) }

func join(path []string, write func(string) string) string {
	var b strings.Builder
	for i, step := range path {
		switch {
		case i == 1 && path[0] == "route" && isNumber(step):
			b.WriteString("[" + step + "]")
			continue
		case i > 0:
			b.WriteByte('.')
		}
		b.WriteString(write(step))
	}
	return b.String()
}

func bareOrQuoted(key string) string {
	if key != "" && !strings.ContainsFunc(key, func(r rune) bool { return !isAlphanumeric(r) && r != '_' && r != '-' }) {
		return key
	}
	return quote(key)
}
