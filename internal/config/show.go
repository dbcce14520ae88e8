package config

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// hidden stands for a value that is set and secret: the hashes of users, and
// what is put into requests, which is often a token.
const hidden = "(set, not shown)"

// entry is one key of a configuration with its value.
type entry struct {
	path []string
	leaf *setting
	val  reflect.Value
}

// entries lists every key of c in the order of the schema, table by table.
func (c *Config) entries() []entry {
	var list []entry
	settings := slices.DeleteFunc(schema(), func(s setting) bool { return s.later != "" })
	for len(settings) > 0 {
		top, _, _ := strings.Cut(settings[0].pattern, ".")
		n := slices.IndexFunc(settings, func(s setting) bool { return !strings.HasPrefix(s.pattern, top+".") })
		if n < 0 {
			n = len(settings)
		}
		for _, name := range c.names(top) {
			for i := range settings[:n] {
				list = append(list, c.expand(&settings[i], name)...)
			}
		}
		settings = settings[n:]
	}
	return list
}

// names are what the first "*" below the table top stands for; a table without
// names has the single name "".
func (c *Config) names(top string) []string {
	switch at := member(reflect.ValueOf(c).Elem(), top); at.Kind() {
	case reflect.Map:
		return keysOf(at)
	case reflect.Slice:
		names := make([]string, at.Len())
		for i := range names {
			names[i] = strconv.Itoa(i + 1)
		}
		return names
	}
	return []string{""}
}

// keysOf are the keys of a map by strings, sorted.
func keysOf(m reflect.Value) (keys []string) {
	for _, key := range m.MapKeys() {
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	return keys
}

// expand is s for the table of that name, once for each entry of a map.
func (c *Config) expand(s *setting, name string) []entry {
	path := strings.Split(s.pattern, ".")
	if name != "" {
		path[1] = name
	}
	v := field(c, path)
	if !v.IsValid() {
		return nil // in a table that was left out
	}
	if v.Kind() != reflect.Map {
		return []entry{{path, s, v}}
	}
	var list []entry
	last := len(path) - 1
	for _, key := range keysOf(v) {
		list = append(list, entry{append(path[:last:last], key), s, v.MapIndex(reflect.ValueOf(key))})
	}
	return list
}

// blank reports whether there is nothing to show: the value is empty, and so is
// its default.
func (e entry) blank(defaults *Config) bool {
	if !empty(e.val) || strings.HasSuffix(e.leaf.pattern, ".*") {
		return false
	}
	at := e.byDefault(defaults)
	return !at.IsValid() || empty(at)
}

// byDefault is the value of the same key in defaults; it is not valid where
// there is none.
func (e entry) byDefault(defaults *Config) reflect.Value {
	path := slices.Clone(e.path)
	switch path[0] {
	case "route":
		path[1] = "1"
	case "listener":
		path[1] = "http"
	case "identity", "trust", "upstream":
		path[1] = "default"
	}
	return field(defaults, path)
}

// follows reports whether the value is there without the key: it is the
// default, and not set.
func (e entry) follows(c, defaults *Config) bool {
	if !c.Origin(plain(e.path)).IsDefault() {
		return false
	}
	at := e.byDefault(defaults)
	return at.IsValid() && at.Kind() != reflect.Map && literal(at) == literal(e.val)
}

// empty is for strings, lists and URLs; false and 0 are values like others.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String, reflect.Slice:
		return v.Len() == 0
	case reflect.Pointer:
		return v.IsNil()
	}
	return false
}

// simple turns a value into what JSON can hold: a boolean, a number, a string,
// or a list of strings or numbers.
func simple(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case bool, int, float64:
		return x
	case *url.URL:
		if x == nil {
			return ""
		}
		return x.String()
	case []string:
		return append([]string{}, x...)
	case []int:
		return append([]int{}, x...)
	case []*url.URL:
		texts := make([]string, len(x))
		for i, u := range x {
			texts[i] = u.String()
		}
		return texts
	case []Pin:
		texts := make([]string, len(x))
		for i, pin := range x {
			texts[i] = pin.String()
		}
		return texts
	case fmt.Stringer: // Duration, Size, FileMode
		return x.String()
	}
	return v.String()
}

// literal is the value as it stands in a file.
func literal(v reflect.Value) string {
	switch x := simple(v).(type) {
	case string:
		return quoteTOML(x)
	case []string:
		for i, item := range x {
			x[i] = quoteTOML(item)
		}
		return "[" + strings.Join(x, ", ") + "]"
	case []int:
		digits := make([]string, len(x))
		for i, n := range x {
			digits[i] = strconv.Itoa(n)
		}
		return "[" + strings.Join(digits, ", ") + "]"
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	default:
		return fmt.Sprint(x)
	}
}

// quoteTOML writes a basic string of TOML, whose escapes are not those of Go.
func quoteTOML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func (e entry) literal() string {
	if e.leaf.secret {
		return hidden
	}
	return literal(e.val)
}

// WriteText writes the effective configuration for people: a key, its value and
// where that comes from on each line. Keys that are empty by default and not
// set are left out; secrets are not shown.
func (c *Config) WriteText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defaults := Default()
	for _, e := range c.entries() {
		if !e.blank(defaults) {
			fmt.Fprintf(table, "%s\t%s\t%s\n", dotted(e.path), e.literal(), c.Origin(plain(e.path)))
		}
	}
	return table.Flush()
}

// WriteTOML writes the effective configuration as a file that loads again, to
// the same settings. Defaults that were not set are comments in it, as in the
// installed file, since some of them cause a warning once they are set. Secrets are
// left out, each with a comment in its place.
func (c *Config) WriteTOML(w io.Writer) error {
	var b strings.Builder
	defaults := Default()
	var table []string
	for _, e := range c.entries() {
		if e.path[0] == "route" && (len(table) < 2 || table[0] != "route" || table[1] != e.path[1]) {
			table = e.path[:2]
			b.WriteString("\n[[route]]\n")
		}
		if e.blank(defaults) {
			continue
		}
		if under := e.path[:len(e.path)-1]; !slices.Equal(under, table) {
			table = under
			fmt.Fprintf(&b, "\n[%s]\n", tableName(table))
		}
		switch {
		case e.leaf.secret:
			b.WriteString("# ")
		case e.follows(c, defaults):
			b.WriteString("#")
		}
		fmt.Fprintf(&b, "%s = %s\n", bareOrQuoted(e.path[len(e.path)-1]), e.literal())
	}
	_, err := io.WriteString(w, strings.TrimPrefix(b.String(), "\n"))
	return err
}

// tableName is what stands in the brackets of a header. Below a route there is
// no number: the last one is meant.
func tableName(path []string) string {
	if path[0] == "route" {
		path = append([]string{"route"}, path[2:]...)
	}
	return dotted(path)
}

// WriteJSON writes the effective configuration as an object: "config" nested as
// in the file, "origin" by dotted key, and the "files" that were read. Secrets
// are not shown.
func (c *Config) WriteJSON(w io.Writer) error {
	out := struct {
		Files  []string          `json:"files"`
		Config map[string]any    `json:"config"`
		Origin map[string]string `json:"origin"`
	}{append([]string{}, c.Files...), map[string]any{}, map[string]string{}}
	for _, e := range c.entries() {
		v := any(hidden)
		if !e.leaf.secret {
			v = simple(e.val)
		}
		out.Origin[plain(e.path)] = c.Origin(plain(e.path)).String()
		put(out.Config, e.path, v)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// put files v under its path. Routes, which come in their order, are a list.
func put(at map[string]any, path []string, v any) {
	if path[0] == "route" {
		routes, _ := at["route"].([]any)
		if n, _ := strconv.Atoi(path[1]); n > len(routes) {
			routes = append(routes, map[string]any{})
			at["route"] = routes
		}
		at, path = routes[len(routes)-1].(map[string]any), path[2:]
	}
	for _, step := range path[:len(path)-1] {
		next, ok := at[step].(map[string]any)
		if !ok {
			next = make(map[string]any)
			at[step] = next
		}
		at = next
	}
	at[path[len(path)-1]] = v
}
