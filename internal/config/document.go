package config

import (
	"bytes"
	"errors"
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
}

// document reads a file into its statements, or returns why it is not TOML.
// Which keys there are is not looked at, nor whether one is there twice.
func document(file string, data []byte) ([]statement, *Problem) {
	d := reading{file: file, lines: lineStarts(data)}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return nil, &Problem{Origin: d.place(0), Fact: "begins with a byte order mark", Hint: "save the file as UTF-8 without one"}
	}
	d.parser.Reset(data)
	var out []statement
	for d.parser.NextExpression() {
		expr := d.parser.Expression()
		switch expr.Kind {
		case unstable.KeyValue:
			out = append(out, statement{pair: d.pair(expr)})
		case unstable.Table, unstable.ArrayTable:
			path, at := d.path(expr)
			out = append(out, statement{pair: pair{path: path, at: at}, header: true, element: expr.Kind == unstable.ArrayTable})
		}
	}
	if err := d.parser.Error(); err != nil {
		return nil, d.syntax(err)
	}
	return out, nil
}

// consistent checks what document does not: that tables and keys are not
// defined over each other, and that numbers and dates exist.
func consistent(file string, data []byte) *Problem {
	var any map[string]any
	err := toml.Unmarshal(data, &any)
	if err == nil {
		return nil
	}
	at := Origin{File: file, Line: 1, Column: 1}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		at.Line, at.Column = decode.Position()
	}
	p := &Problem{Origin: at, Fact: strings.TrimPrefix(err.Error(), "toml: ")}
	switch {
	case strings.Contains(p.Fact, "too large to fit"):
		return nil // the key's own bounds say it better
	case strings.HasPrefix(p.Fact, "table ") && strings.HasSuffix(p.Fact, " already exists"):
		p.Hint = "put all keys of the table under one header"
	}
	return p
}

// reading turns what the parser finds into our own types.
type reading struct {
	file   string
	parser unstable.Parser
	lines  []int // the offset at which each line begins
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
			at = d.place(int(it.Node().Raw.Offset))
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
		v.at = d.place(int(n.Raw.Offset))
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
	p.Origin = d.place(int(d.parser.Range(syntax.Highlight).Offset))
	p.Fact = syntax.Message
	switch {
	case strings.HasPrefix(p.Fact, "strings must be quoted"), strings.HasPrefix(p.Fact, "unexpected character"), strings.HasPrefix(p.Fact, "expected keyword"):
		p.Hint = `strings stand in quotes, as in key = "value"`
	case strings.HasPrefix(p.Fact, "basic strings cannot have new lines"), strings.HasPrefix(p.Fact, "unterminated"):
		p.Hint = "close the quotes on the same line"
	case strings.HasPrefix(p.Fact, "expected '=' after key"):
		p.Hint = `write key = "value", or [table] in brackets`
	}
	return p
}
