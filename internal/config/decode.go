package config

import (
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// example is a value of the kind, for hints.
func (k kind) example() string {
	switch k {
	case link:
		return `"https://HOST:PORT"`
	case links:
		return `["https://HOST:PORT"]`
	case proxyLink:
		return `"http://HOST:PORT"`
	case codes:
		return "[200, 204]"
	case list, choices, oneOrList, pins:
		return `["…"]`
	case boolean:
		return "true"
	case integer, number:
		return "100"
	case duration:
		return `"30s"`
	case size:
		return `"10MiB"`
	case mode:
		return `"0660"`
	}
	return `"…"`
}

// String names the kind after "is not".
func (k kind) String() string {
	switch k {
	case list, choices, oneOrList, pins, links:
		return "a list of strings"
	case codes:
		return "a list of whole numbers"
	case paths:
		return "a path or a list of paths"
	case boolean:
		return "true or false"
	case integer:
		return "a whole number"
	case number:
		return "a number"
	case duration:
		return "a duration"
	case size:
		return "a size"
	}
	return "a string"
}

// decode gives every setting its place in cfg, and reports those whose value
// does not fit. It returns the keys that it could not use.
func (r *reader) decode(cfg *Config, credentials string) (unusable map[string]bool) {
	unusable = make(map[string]bool)
	for _, p := range r.order {
		before := len(r.problems)
		d := decoding{reader: r, placed: p, credentials: credentials}
		if v := d.value(); len(r.problems) == before {
			store(cfg, p.path, v)
		} else {
			unusable[dotted(p.path)] = true
		}
	}
	return unusable
}

// field returns the place of path in cfg. The tables on the way exist, but for
// those that may be left out: what they lack is not valid. For the entries of a
// map of values, it is the map.
func field(cfg *Config, path []string) reflect.Value {
	at := reflect.ValueOf(cfg).Elem()
	for _, step := range path {
		if at.Kind() == reflect.Pointer {
			if at.IsNil() {
				return reflect.Value{}
			}
			at = at.Elem()
		}
		switch at.Kind() {
		case reflect.Map:
			if at.Type().Elem().Kind() != reflect.Pointer {
				return at
			}
			at = at.MapIndex(reflect.ValueOf(step)).Elem()
		case reflect.Slice:
			n, _ := strconv.Atoi(step) // ours: counted by reader
			at = at.Index(n - 1)
		default:
			at = member(at, step)
		}
	}
	return at
}

// member is the field of the struct whose tag is name.
func member(of reflect.Value, name string) reflect.Value {
	if at := tagged(of, name); at.IsValid() {
		return at
	}
	panic("config: no field for the key " + name) // the schema and the types are held together by a test
}

func tagged(of reflect.Value, name string) reflect.Value {
	for i := range of.NumField() {
		f := of.Type().Field(i)
		if f.Tag.Get("toml") == name {
			return of.Field(i)
		}
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			if at := tagged(of.Field(i), name); at.IsValid() {
				return at
			}
		}
	}
	return reflect.Value{}
}

func store(cfg *Config, path []string, v any) {
	to := field(cfg, path)
	if to.Kind() == reflect.Map {
		if to.IsNil() {
			to.Set(reflect.MakeMap(to.Type()))
		}
		to.SetMapIndex(reflect.ValueOf(path[len(path)-1]), reflect.ValueOf(v))
		return
	}
	to.Set(reflect.ValueOf(v).Convert(to.Type()))
}

// decoding is one setting on its way into the configuration.
type decoding struct {
	*reader
	*placed
	credentials string
}

func (d *decoding) wrong(at Origin, fact, hint string) any {
	d.problem(at, d.path, fact, hint)
	return nil
}

// value returns what belongs into the field, or reports why there is nothing.
func (d *decoding) value() any {
	switch d.leaf.kind {
	case boolean:
		if d.val.shape != aBoolean {
			return d.mistyped(d.val, "write true or false, without quotes")
		}
		return d.val.text == "true"
	case integer, number:
		return d.number()
	case codes:
		return d.codes()
	case list, choices, oneOrList, pins, paths, links:
		return d.list()
	}
	return d.scalar(d.val, d.at)
}

// number reads integers and floats, within their bounds.
func (d *decoding) number() any {
	whole := d.leaf.kind == integer
	least, most := float64(d.leaf.least), float64(d.leaf.most)
	if d.val.shape != anInteger && (whole || d.val.shape != aFloat) {
		return d.mistyped(d.val, "write "+d.leaf.kind.example()+", without quotes")
	}
	digits := strings.ReplaceAll(d.val.text, "_", "")
	n, err := strconv.ParseFloat(digits, 64)
	if d.val.shape == anInteger {
		var i int64
		i, err = strconv.ParseInt(digits, 0, 64)
		n = float64(i)
	}
	if err != nil || math.IsNaN(n) || n < least || n > most || d.leaf.above && n == least {
		fact, hint := fmt.Sprintf("%s is not between %d and %d", printable(d.val.text), d.leaf.least, d.leaf.most), ""
		if d.leaf.above {
			fact = fmt.Sprintf("%s is not above %d and at most %d", printable(d.val.text), d.leaf.least, d.leaf.most)
		}
		if !whole && most == 1 && n >= 2 && n <= 100 {
			hint = fmt.Sprintf("write %s for %s %%", strconv.FormatFloat(n/100, 'f', -1, 64), printable(d.val.text))
		}
		return d.wrong(d.at, fact, hint)
	}
	if whole {
		return int(n)
	}
	return n
}

// codes reads a list of integers, each within the bounds.
func (d *decoding) codes() any {
	if d.val.shape != anArray {
		return d.mistyped(d.val, "put it in brackets: "+d.path[len(d.path)-1]+" = "+d.leaf.kind.example())
	}
	numbers := []int{}
	for _, item := range d.val.items {
		if item.shape != anInteger {
			d.mistyped(item, "write a number as in "+d.leaf.kind.example()+", without quotes")
			continue
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(item.text, "_", ""), 0, 64)
		switch {
		case err != nil || n < d.leaf.least || n > d.leaf.most:
			d.wrong(item.at, fmt.Sprintf("%s is not between %d and %d", printable(item.text), d.leaf.least, d.leaf.most), "")
		case slices.Contains(numbers, int(n)):
			d.wrong(item.at, printable(item.text)+" is there twice", "remove one")
		default:
			numbers = append(numbers, int(n))
		}
	}
	return numbers
}

// list reads a list of strings; some keys take a single string as well.
func (d *decoding) list() any {
	items := []value{d.val}
	if d.val.shape == anArray {
		items = d.val.items
	} else if d.leaf.kind != paths && d.leaf.kind != oneOrList {
		return d.mistyped(d.val, "put it in brackets: "+d.path[len(d.path)-1]+` = ["…"]`)
	}
	texts, keys, urls := []string{}, []Pin{}, []*url.URL{}
	for _, item := range items {
		before := len(d.problems)
		got := d.scalar(item, item.at)
		if len(d.problems) > before {
			continue
		}
		v, _ := got.(string)
		if u, is := got.(*url.URL); is {
			v = hostPort(u) // the port may be left out
			if !slices.Contains(texts, v) {
				urls = append(urls, u)
			}
		}
		if v == "" {
			continue
		}
		if slices.Contains(texts, v) {
			d.wrong(item.at, quote(item.text)+" is there twice", "remove one")
			continue
		}
		texts = append(texts, v)
		if d.leaf.kind == pins {
			pin, _ := parsePin(v)
			keys = append(keys, pin)
		}
	}
	switch d.leaf.kind {
	case pins:
		return keys
	case links:
		return urls
	}
	return texts
}

// scalar reads what is written as one string.
func (d *decoding) scalar(v value, at Origin) any {
	if v.shape != aString {
		return d.mistyped(v, "")
	}
	s := v.text
	var fact, hint string
	switch d.leaf.kind {
	case duration:
		var got Duration
		if got, fact, hint = parseDuration(s); fact == "" {
			if fact, hint = d.outside(int64(got.Duration), func(n int64) string { return Duration{time.Duration(n)}.String() }, quote(s)); fact == "" {
				return got
			}
		}
		return d.wrong(at, fact, hint)
	case size:
		var got Size
		if got, fact, hint = parseSize(s); fact == "" {
			if fact, hint = d.outside(got.Bytes, func(n int64) string { return Size{n}.String() }, quote(s)); fact == "" {
				return got
			}
		}
		return d.wrong(at, fact, hint)
	case mode:
		if got, ok := parseMode(s); ok {
			return got
		}
		return d.wrong(at, quote(s)+" is not a file mode", `write it in octal digits, as in "0660"`)
	case path, paths:
		return d.file(s, at)
	case choice, choices:
		if !slices.Contains(d.leaf.allowed, s) {
			hint = nearest(s, d.leaf.allowed)
			if hint != "" {
				hint = `did you mean "` + hint + `"?`
			}
			return d.wrong(at, quote(s)+" is not "+either(d.leaf.allowed), hint)
		}
		return s
	}
	switch {
	case s == "" && d.leaf.kind == text && !d.leaf.secret:
		return s // as if it were not there
	case s == "" && d.leaf.kind == proxyLink:
		return (*url.URL)(nil)
	}
	if d.leaf.check != nil {
		if fact, hint = d.leaf.check(s); fact != "" {
			return d.wrong(at, fact, hint)
		}
	}
	switch d.leaf.kind {
	case link, links:
		return canonicalURL(s)
	case proxyLink:
		return canonicalProxy(s)
	}
	return s
}

// outside reports a value beyond the bounds of its setting.
func (d *decoding) outside(n int64, show func(int64) string, written string) (fact, hint string) {
	switch {
	case n < 0:
		return written + " is negative", ""
	case n < d.leaf.least:
		return written + " is too small", "the least is " + strconv.Quote(show(d.leaf.least))
	case n > d.leaf.most:
		return written + " is too large", "the most is " + strconv.Quote(show(d.leaf.most))
	}
	return "", ""
}

// file makes a path absolute and resolves credentials.
func (d *decoding) file(s string, at Origin) any {
	name, isCredential := strings.CutPrefix(s, "credential:")
	switch {
	case s == "" && d.val.shape == anArray:
		return d.wrong(at, `"" is not a path`, "remove it")
	case s == "":
		return s
	case strings.Contains(s, "-----BEGIN") || strings.ContainsAny(s, "\n\r\x00"):
		return d.wrong(at, "is not a path but the content of a file", "put the content into a file and its path here")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return d.wrong(at, quote(s)+" has a control character in it", "rename the file")
	case strings.HasPrefix(s, "~/"):
		return d.wrong(at, quote(s)+" is not expanded; no shell reads this file", "write the absolute path")
	case isCredential && (name == "" || name == "." || name == ".." || strings.Contains(name, "/")):
		return d.wrong(at, quote(s)+" names no credential", `write "credential:NAME" with the NAME of LoadCredential=`)
	case isCredential && d.credentials == "":
		return d.wrong(at, "$CREDENTIALS_DIRECTORY is not set, so there are no credentials", "add LoadCredential="+printable(name)+":/path to the unit; the service has its credentials only while it runs, so start it before you check from a shell")
	case isCredential:
		s = filepath.Join(d.credentials, name)
	case !filepath.IsAbs(s):
		s = d.placed.folder + "/" + s
	}
	if d.leaf.check != nil {
		if fact, hint := d.leaf.check(s); fact != "" {
			return d.wrong(at, fact, hint)
		}
	}
	return filepath.Clean(s)
}

// mistyped reports a value of the wrong TOML type.
func (d *decoding) mistyped(v value, hint string) any {
	at := v.at
	if d.val.shape != anArray {
		at = d.at
	}
	isNumeric := v.shape == anInteger || v.shape == aFloat
	shown := printable(v.text)
	switch {
	case isNumeric && d.leaf.kind == duration:
		return d.wrong(at, shown+" has no unit", "write "+strconv.Quote(shown+"s"))
	case isNumeric && d.leaf.kind == size:
		return d.wrong(at, shown+" has no unit", "write "+strconv.Quote(shown+"B")+" for bytes, or use KiB, MiB, GiB")
	}
	if hint == "" {
		switch {
		case d.leaf.kind == mode && isNumeric:
			hint = `write it in quotes, as in "0660"`
		case (d.leaf.kind == choice || d.leaf.kind == choices) && isNumeric:
			hint = "write " + strconv.Quote(shown)
		case v.shape == anArray:
			hint = "write one string, without brackets"
		default:
			hint = "write it in quotes"
		}
	}
	return d.wrong(at, "is "+v.shape.String()+", not "+d.expected(v), hint)
}

// expected is the kind of d, or of its elements when v is one of them.
func (d *decoding) expected(v value) string {
	switch {
	case d.leaf.kind == codes && d.val.shape == anArray:
		return "a whole number"
	case d.val.shape == anArray && v.shape != anArray:
		return "a string"
	}
	return d.leaf.kind.String()
}

func (s shape) String() string {
	return [...]string{"a string", "a boolean", "an integer", "a number with a fraction", "a date or time", "a list", "a table"}[s]
}

// either lists choices for a sentence: "a", "b" or "c".
func either(choices []string) string {
	quoted := quoteAll(choices)
	if len(quoted) == 1 {
		return quoted[0]
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

func quoteAll(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return quoted
}

// workingDirectory is where relative paths of flags start.
func workingDirectory() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}
