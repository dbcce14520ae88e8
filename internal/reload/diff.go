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

// settings lists every key of cfg with its value as text. What may be a secret
// is there as a pair: the value to compare, and nothing to show.
func settings(cfg *config.Config) map[string]setting {
	all := make(map[string]setting)
	collect(all, "", reflect.ValueOf(cfg).Elem())
	return all
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
		if v.Type().Elem().Kind() == reflect.Struct {
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

func below(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// changes tells what the settings of next have that those of prev had not, a
// line each, in the order of the keys. A table that came or went as a whole is
// one line.
func changes(prev, next map[string]setting) []string {
	var lines []string
	tables := make(map[string]bool)
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
		name, verb, other := table(key), "added", prev
		if was {
			verb, other = "removed", next
		}
		if name != "" && !hasTable(other, name) {
			if !tables[name] {
				tables[name] = true
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

func hasTable(settings map[string]setting, name string) bool {
	for key := range settings {
		if strings.HasPrefix(key, name+".") {
			return true
		}
	}
	return false
}

// diff tells what next does otherwise than prev: settings, and files whose
// name stayed while their content changed.
func diff(prevCfg, nextCfg *config.Config, prev, next *snapshot.Snapshot) []string {
	lines := changes(settings(prevCfg), settings(nextCfg))
	for _, now := range next.Identities {
		i := slices.IndexFunc(prev.Identities, func(id *identity.Identity) bool { return id.Name == now.Name })
		if i < 0 || prev.Identities[i].Fingerprint == now.Fingerprint {
			continue
		}
		lines = append(lines, fmt.Sprintf("identity %q: serial %s is now %s, which expires %s",
			now.Name, prev.Identities[i].Serial, now.Serial, now.NotAfter.UTC().Format(time.DateOnly)))
	}
	for _, now := range next.Bundles {
		i := slices.IndexFunc(prev.Bundles, func(b *trust.Bundle) bool { return b.Name == now.Name })
		if i >= 0 && prev.Bundles[i].Fingerprint != now.Fingerprint {
			lines = append(lines, fmt.Sprintf("trust %q: its certificates have changed", now.Name))
		}
	}
	return lines
}
