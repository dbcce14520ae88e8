package reload

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// settings lists the keys of two configurations with their values as text, but
// for tables with a name, and routes, that are the same in both. What may be a
// secret is there as a pair: the value to compare, and nothing to show.
func settings(prev, next *config.Config) (before, after map[string]setting) {
	before, after = make(map[string]setting), make(map[string]setting)
	p, n := reflect.ValueOf(prev).Elem(), reflect.ValueOf(next).Elem()
	for i := range p.NumField() {
		field := p.Type().Field(i)
		name := field.Tag.Get("toml")
		if !field.IsExported() || name == "-" {
			continue
		}
		collect(before, name, unlike(p.Field(i), n.Field(i)))
		collect(after, name, unlike(n.Field(i), p.Field(i)))
	}
	return before, after
}

// unlike is v without the tables that other has as well. Routes, which are
// known by their number, are left empty.
func unlike(v, other reflect.Value) reflect.Value {
	switch {
	case v.Kind() == reflect.Map:
		left := reflect.MakeMap(v.Type())
		for name, table := range v.Seq2() {
			if at := other.MapIndex(name); !at.IsValid() || !reflect.DeepEqual(table.Interface(), at.Interface()) {
				left.SetMapIndex(name, table)
			}
		}
		return left
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		left := reflect.MakeSlice(reflect.SliceOf(reflect.PointerTo(v.Type().Elem())), v.Len(), v.Len())
		for i := range v.Len() {
			if i >= other.Len() || !reflect.DeepEqual(v.Index(i).Interface(), other.Index(i).Interface()) {
				left.Index(i).Set(v.Index(i).Addr())
			}
		}
		return left
	}
	return v
}

type setting struct {
	value  string
	secret bool
}

func (s setting) String() string {
	if s.secret {
		return "(not shown)"
	}
	return s.value
}

// collect adds v, which stands under key, to all. The types of package config
// that are one value know how to write themselves; the rest are tables.
func collect(all map[string]setting, key string, v reflect.Value) {
	if text, ok := v.Interface().(fmt.Stringer); ok {
		all[key] = setting{value: scalar(v, text)}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			collect(all, key, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			name := field.Tag.Get("toml")
			if !field.IsExported() || name == "-" {
				continue
			}
			collect(all, below(key, name), v.Field(i))
		}
	case reflect.Map:
		for _, name := range v.MapKeys() {
			collect(all, below(key, name.String()), v.MapIndex(name))
		}
	case reflect.Slice:
		if elem := v.Type().Elem(); elem.Kind() == reflect.Struct || elem.Kind() == reflect.Pointer && elem.Elem().Kind() == reflect.Struct {
			for i := range v.Len() {
				collect(all, key+"["+strconv.Itoa(i+1)+"]", v.Index(i))
			}
			return
		}
		items := make([]string, v.Len())
		for i := range items {
			items[i] = fmt.Sprintf("%q", fmt.Sprint(v.Index(i).Interface()))
		}
		all[key] = setting{value: "[" + strings.Join(items, ", ") + "]"}
	case reflect.String:
		all[key] = setting{value: strconv.Quote(v.String()), secret: isSecret(key)}
	default:
		all[key] = setting{value: fmt.Sprint(v.Interface())}
	}
}

func scalar(v reflect.Value, text fmt.Stringer) string {
	if v.Kind() == reflect.Pointer && v.IsNil() {
		return `""`
	}
	return strconv.Quote(text.String())
}

// isSecret tells values that show-config does not print either: the hashes of
// users, and what is put into requests, which is often a token.
func isSecret(key string) bool {
	return strings.HasPrefix(key, "admin.users.") || strings.Contains(key, ".request_headers.")
}

// below is the key name in the table key. A struct without a name of its own
// is embedded: its keys are those of the table around it.
func below(key, name string) string {
	switch {
	case key == "":
		return name
	case name == "":
		return key
	}
	return key + "." + name
}

// changes tells what the settings of next have that those of prev had not, a
// line each, in the order of the keys. A table that came or went as a whole is
// one line.
func changes(prev, next map[string]setting) []string {
	var lines []string
	told := make(map[string]bool)
	hadTable, hasTable := tables(prev), tables(next)
	keys := slices.Sorted(maps.Keys(prev))
	for key := range next {
		if _, both := prev[key]; !both {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		before, was := prev[key]
		after, is := next[key]
		if was && is {
			if before != after {
				lines = append(lines, fmt.Sprintf("%s: %s is now %s", key, before, after))
			}
			continue
		}
		name, verb, other := table(key), "added", hadTable
		if was {
			verb, other = "removed", hasTable
		}
		if name != "" && !other[name] {
			if !told[name] {
				told[name] = true
				lines = append(lines, name+" "+verb)
			}
			continue
		}
		lines = append(lines, key+" "+verb)
	}
	return lines
}

// table is the named table that key is in: "upstream.ledger", "route[2]".
func table(key string) string {
	first, rest, _ := strings.Cut(key, ".")
	if strings.HasSuffix(first, "]") {
		return first
	}
	switch first {
	case "identity", "trust", "upstream", "listener":
		name, _, _ := strings.Cut(rest, ".")
		return first + "." + name
	}
	return ""
}

// tables are the named tables that settings are in.
func tables(settings map[string]setting) map[string]bool {
	names := make(map[string]bool)
	for key := range settings {
		names[table(key)] = true
	}
	return names
}

// diff tells what next does otherwise than prev: settings, and files whose
// name stayed while their content changed.
func diff(prevCfg, nextCfg *config.Config, prev, next *snapshot.Snapshot) []string {
	lines := changes(settings(prevCfg, nextCfg))
	identities := make(map[string]*identity.Identity)
	for _, id := range prev.Identities {
		identities[id.Name] = id
	}
	for _, now := range next.Identities {
		before := identities[now.Name]
		if before == nil || before.Fingerprint == now.Fingerprint {
			continue
		}
		lines = append(lines, fmt.Sprintf("identity %q: serial %s is now %s, which expires %s",
			now.Name, before.Serial, now.Serial, now.NotAfter.UTC().Format(time.DateOnly)))
	}
	bundles := make(map[string]*trust.Bundle)
	for _, b := range prev.Bundles {
		bundles[b.Name] = b
	}
	for _, now := range next.Bundles {
		if before := bundles[now.Name]; before != nil && before.Fingerprint != now.Fingerprint {
			lines = append(lines, fmt.Sprintf("trust %q: its certificates have changed", now.Name))
		}
	}
	return lines
}
