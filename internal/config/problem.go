package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// Origin is where a value comes from: a place in a file, a flag, or neither,
// which is the default. Lines and columns count from 1, columns in bytes.
type Origin struct {
	File         string
	Line, Column int
	Flag         string // as typed, "--url"
}

// IsDefault reports whether nobody set the value.
func (o Origin) IsDefault() bool { return o.File == "" && o.Flag == "" }

// String is "file:line:column", "flag --url" or "default". What is not printable
// in the name of a file is escaped.
func (o Origin) String() string {
	switch {
	case o.Flag != "":
		return "flag " + o.Flag
	case o.File == "":
		return "default"
	case o.Line == 0:
		return files.Visible(o.File)
	}
	return fmt.Sprintf("%s:%d:%d", files.Visible(o.File), o.Line, o.Column)
}

// Problem is one thing that is wrong with the configuration, for the person
// who edits it. It quotes no secret.
type Problem struct {
	Origin Origin
	Key    string // as one would write it; may be empty
	Fact   string
	Hint   string // what to do, where there is something to paste; may be empty
}

// String is one line, and a second one, indented by a tab, with the hint.
func (p Problem) String() string {
	var b strings.Builder
	if !p.Origin.IsDefault() {
		b.WriteString(p.Origin.String() + ": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(files.Visible(p.Fact))
	if p.Hint != "" {
		b.WriteString("\n\thint: " + files.Visible(p.Hint))
	}
	return b.String()
}

// Problems is everything that is wrong, in the order of the files. It is never
// empty when it is an error.
type Problems []Problem

// Error has every problem, each on its own lines.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// InOrder sorts by file (in the order of paths), line and column; what has no
// place comes last.
func (ps Problems) InOrder(paths []string) {
	rank := func(o Origin) int {
		if i := slices.Index(paths, o.File); i >= 0 && o.File != "" {
			return i
		}
		return len(paths)
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(rank(a.Origin), rank(b.Origin)),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column),
		)
	})
}
