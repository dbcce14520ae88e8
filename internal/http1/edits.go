package http1

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Edits are an operator's changes to the fields of a message, compiled. The nil Edits change
// nothing. Edits are never written after they were made.
type Edits struct {
	lines   []byte   // the lines that are put in, each with its CRLF
	dropped []string // names, folded: every spelling that CGI can not tell from them goes
	guarded []string // names, folded, of add: spellings with other marks go
	lengths uint64   // lengthBit of all names above
	ids     uint64   // bit of every ID among dropped
	added   uint64   // bit of every ID among guarded
}

// CompileEdits makes Edits of: set, which replaces a field or puts it in; add, which puts one
// in beside those that are there; remove. It refuses Host, framing and hop-by-hop fields, names in two
// of the groups, and names and values that are no such thing. Order does not depend on the maps.
func CompileEdits(set, add map[string]string, remove []string) (*Edits, error) {
	e := new(Edits)
	seen := make(map[string]string)
	take := func(group, name string) (string, error) {
		folded, err := editable(name)
		if err == nil {
			if first, dup := seen[folded]; dup {
				err = fmt.Errorf("the same field as %q", first)
			}
		}
		if err != nil {
			return "", fmt.Errorf("%s %q: %w", group, name, err)
		}
		seen[folded] = name
		e.lengths |= lengthBit(name)
		return folded, nil
	}
	for _, group := range []struct {
		name   string
		fields map[string]string
	}{{"set", set}, {"add", add}} {
		for _, name := range slices.Sorted(maps.Keys(group.fields)) {
			folded, err := take(group.name, name)
			if err != nil {
				return nil, err
			}
			value := group.fields[name]
			if !all([]byte(value), valueByte) || strings.Trim(value, " \t") != value {
				return nil, fmt.Errorf("%s %q: the value holds a control character, or white space at an end", group.name, name)
			}
			e.lines = AppendField(e.lines, name, value)
			id := Identify([]byte(name))
			if group.name == "set" {
				e.dropped = append(e.dropped, folded)
				e.ids |= 1 << id
			} else {
				e.guarded = append(e.guarded, folded)
				e.added |= 1 << id
			}
		}
	}
	for _, name := range remove {
		folded, err := take("remove", name)
		if err != nil {
			return nil, err
		}
		e.dropped = append(e.dropped, folded)
		e.ids |= 1 << Identify([]byte(name))
	}
	// Other stands for no field in particular.
	e.ids &^= 1 << Other
	e.added &^= 1 << Other
	return e, nil
}

// editable folds name, or says why no one may edit it.
func editable(name string) (folded string, _ error) {
	if !isToken([]byte(name)) {
		return "", fmt.Errorf("not a field name")
	}
	id, traits := lookup([]byte(name))
	switch {
	case traits&fixed != 0:
		return "", fmt.Errorf("the proxy itself sets Host, framing and hop-by-hop fields")
	case id == Underscored:
		return "", fmt.Errorf("another spelling of a field that the proxy sets; write it with hyphens")
	}
	b := []byte(name)
	for i, c := range b {
		b[i] = fold[c]
	}
	return string(b), nil
}

// drops reports whether a field that came with the message goes.
func (e *Edits) drops(name []byte) bool {
	if e == nil || e.lengths&lengthBit(name) == 0 {
		return false
	}
	for _, d := range e.dropped {
		if len(d) == len(name) && foldedPrefix(name, d) {
			return true
		}
	}
	for _, g := range e.guarded {
		if len(g) == len(name) && foldedPrefix(name, g) && respelt(name) {
			return true
		}
	}
	return false
}

// replaces reports whether the operator set or removed a field that we would put in ourselves.
func (e *Edits) replaces(id ID) bool { return e != nil && e.ids&(1<<id) != 0 }

// provides reports whether the operator decided about a field that we put in only where it is missing.
func (e *Edits) provides(id ID) bool { return e != nil && (e.ids|e.added)&(1<<id) != 0 }

// mentions is provides for any name.
func (e *Edits) mentions(name string) bool {
	if e == nil || e.lengths&lengthBit(name) == 0 {
		return false
	}
	same := func(s string) bool { return len(s) == len(name) && foldedPrefix([]byte(name), s) }
	return slices.ContainsFunc(e.dropped, same) || slices.ContainsFunc(e.guarded, same)
}
