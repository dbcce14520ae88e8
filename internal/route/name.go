package route

import (
	"fmt"
	"strings"
)

// Name returns what a rule is called in logs and metrics: its host and prefix,
// or "default" for the rule that is for everything.
func Name(r Rule) string {
	prefix := strings.TrimSuffix(r.PathPrefix, "/")
	switch {
	case r.Host == "" && prefix == "" && r.Listener == "" && len(r.Methods) == 0:
		return "default"
	case r.Host+prefix == "":
		return "/"
	}
	return strings.ToLower(r.Host) + prefix
}

// Names returns the name of every rule, in their order, with listener, methods or
// at last a number added to those that would otherwise share one.
func Names(rules []Rule) []string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = Name(r)
	}
	qualify(names, func(i int) string {
		if rules[i].Listener == "" {
			return names[i]
		}
		return names[i] + "@" + rules[i].Listener
	})
	qualify(names, func(i int) string {
		if len(rules[i].Methods) == 0 {
			return names[i]
		}
		return strings.Join(rules[i].Methods, ",") + " " + names[i]
	})
	seen := make(map[string]int)
	for i, n := range names {
		if seen[n]++; seen[n] > 1 {
			names[i] = fmt.Sprintf("%s#%d", n, seen[n])
		}
	}
	return names
}

// qualify replaces every name that occurs more than once.
func qualify(names []string, longer func(i int) string) {
	count := make(map[string]int)
	for _, n := range names {
		count[n]++
	}
	for i, n := range names {
		if count[n] > 1 {
			names[i] = longer(i)
		}
	}
}
