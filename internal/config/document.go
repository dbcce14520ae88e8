package config

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// shape is what a value is in TOML.
type shape uint8

const (
	aString shape = iota
	aBoolean
	anInteger
	aFloat
	aDate
	anArray
	aTable
)

// value is a TOML value and where it stands.
type value struct {
	shape shape
	text  string // decoded for strings, as written for other scalars
	at    Origin
	items []value // of an array
	pairs []pair  // of an inline table
}

// pair is a key, perhaps dotted, with its value.
type pair struct {
	path []string
	at   Origin
	val  value
}

// statement is one expression of a document: a header, or a pair under the
// header before it.
type statement struct {
	pair
	header, element bool // [path], [[path]]

	flaw *flaw // instead of all that: something that is not TOML
}

// flaw is a place in a file that is not TOML.
type flaw struct {
	problem Problem
	lost    loss
	kind    string // the first name in the header that was lost, as far as it can be read
}

// loss is what was not read because of a flaw.
type loss uint8

const (
	nothing   loss = iota
	aKey           // of the table that is open
	aHeader        // and the keys below it
	theOthers      // everything behind it
)

// maxFlaws bounds how often reading starts again after a flaw.
const maxFlaws = 50

// document reads a file into its statements. Which keys there are is not looked
// at, nor whether one is there twice. A flaw ends nothing but its own statement:
// reading goes on at the next line that looks like a header or a key.
func document(file string, data []byte) (out []statement, sound bool) {
	d := reading{file: file, lines: lineStarts(data)}
	sound = true
	if mark := "\xef\xbb\xbf"; bytes.HasPrefix(data, []byte(mark)) {
		out = append(out, statement{flaw: &flaw{problem: Problem{Origin: d.place(0), Fact: "begins with a byte order mark", Hint: "save the file as UTF-8 without one"}}})
		d.base, sound = len(mark), false
	}
	last := 0 // the line that the last statement began at
	for left := maxFlaws; ; left-- {
		d.parser.Reset(data[d.base:])
		for d.parser.NextExpression() {
			expr := d.parser.Expression()
			var s statement
			switch expr.Kind {
			case unstable.KeyValue:
				s.pair = d.pair(expr)
			case unstable.Table, unstable.ArrayTable:
				s.path, s.at = d.path(expr)
				s.header, s.element = true, expr.Kind == unstable.ArrayTable
			default:
				continue
			}
			last = s.at.Line
			out = append(out, s)
		}
		err := d.parser.Error()
		if err == nil {
			return out, sound
		}
		sound = false
		f := &flaw{problem: *d.syntax(err), lost: aKey}
		at := f.problem.Origin.Line
		header := strings.TrimLeft(string(d.line(data, at)), " \t")
		isHeader := strings.HasPrefix(header, "[")
		next := d.resume(data, last, at, isHeader)
		switch {
		case left == 1:
			f.lost, next = theOthers, 0
		case isHeader && (next == 0 || next > at):
			f.lost, f.kind = aHeader, firstName(header)
		}
		if strings.Contains(f.problem.Fact, "not terminated") {
			f.problem.Origin = d.begin(data, last+1, f.problem.Origin)
		}
		out = append(out, statement{flaw: f})
		if next == 0 {
			return out, sound
		}
		d.base, last = d.lines[next-1], next-1
	}
}

// begin is the place, from a line on, of the quotes that begin a text of several
// lines; its end is what the parser looked for in vain.
func (d *reading) begin(data []byte, line int, end Origin) Origin {
	for n := line; n <= end.Line; n++ {
		if i := max(bytes.Index(d.line(data, n), []byte(`"""`)), bytes.Index(d.line(data, n), []byte("'''"))); i >= 0 {
			return Origin{File: d.file, Line: n, Column: i + 1}
		}
	}
	return end
}

// resume is the line at which reading goes on after a flaw in line at, 0 if
// there is none. last is the line of the statement before. What a value without
// an end has swallowed may begin with a header above at.
func (d *reading) resume(data []byte, last, at int, header bool) int {
	const name = `[ \t]*([A-Za-z0-9_-]+|"[^"\\]*")[ \t]*`
	wholeHeader := regexp.MustCompile(`^[ \t]*\[` + `(\[` + name + `(\.` + name + `)*\]|` + name + `(\.` + name + `)*)` + `\][ \t]*(#.*)?$`)
	headerStart := regexp.MustCompile(`^[ \t]*\[\[?[ \t]*[A-Za-z0-9_-]`)
	keyStart := regexp.MustCompile(`^` + name + `(\.` + name + `)*=`)
	begun := d.place(d.base).Line // reading from here came to the flaw
	for n := max(last, begun-1) + 1; n <= len(d.lines); n++ {
		line := d.line(data, n)
		switch {
		case n > begun && wholeHeader.Match(line),
			n > at && headerStart.Match(line), // perhaps a flaw of its own
			n > at && !header && keyStart.Match(line):
			return n
		}
	}
	return 0
}

// firstName is the first name in a header.
func firstName(header string) string {
	name := strings.TrimLeft(header, "[ \t")
	if end := strings.IndexFunc(name, func(r rune) bool { return !isAlphanumeric(r) && r != '_' && r != '-' }); end >= 0 {
		name = name[:end]
	}
	return name
}

// line is the text of line n, without its end.
func (d *reading) line(data []byte, n int) []byte {
	end := len(data)
	if n < len(d.lines) {
		end = d.lines[n]
	}
	return bytes.TrimRight(data[d.lines[n-1]:end], "\r\n")
}

// consistent checks what document does not: that tables and keys are not
// defined over each other, and that numbers and dates exist.
//
// The library looks for each name among all that came before. So that a large
// file takes no more than its share, it gets the file in parts that cannot
// contradict each other.
func consistent(file string, data []byte, doc []statement) *Problem {
	for _, p := range parts(data, doc, tablesInPart) {
		if problem := p.consistent(file); problem != nil {
			return problem
		}
	}
	return nil
}

// part is some of a file's lines.
type part struct {
	text  []byte
	lines []int // the number in the file of each line
}

func (p *part) consistent(file string) *Problem {
	var any map[string]any
	err := toml.Unmarshal(p.text, &any)
	if err == nil {
		return nil
	}
	at := Origin{File: file, Line: 1, Column: 1}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		at.Line, at.Column = p.lines[min(max(line, 1), len(p.lines))-1], column
	}
	problem := &Problem{Origin: at, Fact: strings.TrimPrefix(err.Error(), "toml: ")}
	switch {
	case strings.Contains(problem.Fact, "too large to fit"):
		return nil // the key's own bounds say it better
	case strings.HasPrefix(problem.Fact, "table ") && strings.HasSuffix(problem.Fact, " already exists"):
		problem.Hint = "put all keys of the table under one header"
	}
	return problem
}

const tablesInPart = 64

// parts cuts a file before its headers. A part holds up to n tables with a name
// of the operator's, each with all that belongs to it, or as many routes, or
// all that has no such name. A file in which the headers alone do not tell what
// belongs where stays whole.
func parts(data []byte, doc []statement, n int) []*part {
	starts := lineStarts(data)
	var (
		all     []*part
		byGroup = make(map[string]*part)
		numbers = make(map[string]int) // of tables with a name, in the order of their coming
		routes  int
		group   = "" // what has no name
		from    = 1  // the line that the current one begins at
	)
	cut := func(to int) { // before that line
		p := byGroup[group]
		if p == nil {
			p = &part{}
			byGroup[group] = p
			all = append(all, p)
		}
		end := len(data)
		if to <= len(starts) {
			end = starts[to-1]
		}
		p.text = append(p.text, data[starts[from-1]:end]...)
		for line := from; line < to; line++ {
			p.lines = append(p.lines, line)
		}
		from = to
	}
	kinds := tree().children
	named := func(kind string) bool { return kinds[kind] != nil && kinds[kind].any != nil }
	top := true // no header came yet
	for _, s := range doc {
		kind := s.path[0]
		isRoute := kind == "route" && s.element && len(s.path) == 1
		unclear := false // which table or route it belongs to
		switch {
		case !named(kind), isRoute:
		case !s.header:
			unclear = top
		case kind == "route":
			unclear = len(s.path) == 1 || routes == 0
		default:
			unclear = len(s.path) == 1
		}
		if unclear {
			return []*part{whole(data, starts)}
		}
		if !s.header {
			continue
		}
		top = false
		cut(s.at.Line)
		switch {
		case !named(kind):
			group = ""
		case kind == "route":
			if isRoute {
				routes++
			}
			group = "route " + strconv.Itoa(routes/n)
		default:
			name := dotted(s.path[:2])
			if _, known := numbers[name]; !known {
				numbers[name] = len(numbers)
			}
			group = "table " + strconv.Itoa(numbers[name]/n)
		}
	}
	cut(len(starts) + 1)
	return all
}

func whole(data []byte, starts []int) *part {
	p := &part{text: data}
	for i := range starts {
		p.lines = append(p.lines, i+1)
	}
	return p
}

// reading turns what the parser finds into our own types.
type reading struct {
	file   string
	parser unstable.Parser
	lines  []int // the offset at which each line begins
	base   int   // the offset that the parser began at
}

func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

func (d *reading) place(offset int) Origin {
	low, high := 0, len(d.lines)
	for high-low > 1 {
		if mid := (low + high) / 2; d.lines[mid] <= offset {
			low = mid
		} else {
			high = mid
		}
	}
	return Origin{File: d.file, Line: low + 1, Column: offset - d.lines[low] + 1}
}

func (d *reading) path(expr *unstable.Node) (path []string, at Origin) {
	for it := expr.Key(); it.Next(); {
		if path == nil {
			at = d.place(d.base + int(it.Node().Raw.Offset))
		}
		path = append(path, string(it.Node().Data))
	}
	return path, at
}

func (d *reading) pair(expr *unstable.Node) pair {
	path, at := d.path(expr)
	return pair{path: path, at: at, val: d.value(expr.Value(), at)}
}

// value reads n. Arrays have no place of their own in the syntax tree; they get
// that of their key.
func (d *reading) value(n *unstable.Node, key Origin) value {
	v := value{text: string(n.Data), at: key}
	if n.Raw.Length > 0 {
		v.at = d.place(d.base + int(n.Raw.Offset))
	}
	switch n.Kind {
	case unstable.String:
		v.shape = aString
	case unstable.Bool:
		v.shape = aBoolean
	case unstable.Integer:
		v.shape = anInteger
	case unstable.Float:
		v.shape = aFloat
	case unstable.Array:
		v.shape = anArray
		for it := n.Children(); it.Next(); {
			v.items = append(v.items, d.value(it.Node(), key))
		}
	case unstable.InlineTable:
		v.shape = aTable
		for it := n.Children(); it.Next(); {
			v.pairs = append(v.pairs, d.pair(it.Node()))
		}
	default:
		v.shape = aDate
	}
	return v
}

func (d *reading) syntax(err error) *Problem {
	p := &Problem{Origin: Origin{File: d.file, Line: 1, Column: 1}, Fact: err.Error()}
	var syntax *unstable.ParserError
	if !errors.As(err, &syntax) {
		return p
	}
	p.Origin = d.place(d.base + int(d.parser.Range(syntax.Highlight).Offset))
	p.Fact = syntax.Message
	switch {
	case strings.HasPrefix(p.Fact, "strings must be quoted"), strings.HasPrefix(p.Fact, "unexpected character"), strings.HasPrefix(p.Fact, "expected keyword"):
		p.Hint = `strings stand in quotes, as in key = "value"`
	case strings.Contains(p.Fact, "strings cannot have new lines"), strings.HasPrefix(p.Fact, "unterminated"):
		p.Hint = "close the quotes on the same line"
	case strings.HasPrefix(p.Fact, "expected ',' or ']'"), strings.HasPrefix(p.Fact, "array is incomplete"):
		p.Hint = `a list has commas between its values and ends in "]"`
	case strings.HasPrefix(p.Fact, "expected '=' after key"):
		p.Hint = `write key = "value", or [table] in brackets`
	}
	return p
}
