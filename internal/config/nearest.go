package config

import (
	"slices"
	"strings"
)

// nearest returns the one of names that word was probably meant to be, or "".
func nearest(word string, names []string) string {
	best, least := "", len(word)/3+1
	for _, name := range slices.Sorted(slices.Values(names)) {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d <= least && d < len(name) {
			if best == "" || d < least {
				best, least = name, d
			}
		}
	}
	if best == "" && len(word) >= 3 {
		for _, name := range names {
			if strings.HasPrefix(name, word) {
				if best != "" {
					return "" // more than one begins like this
				}
				best = name
			}
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// didYouMean is a hint for a name that does not exist: the nearest one, or all
// of them when there are few.
func didYouMean(word string, names []string) string {
	if near := nearest(word, names); near != "" {
		return `did you mean "` + near + `"?`
	}
	switch {
	case len(names) == 1:
		return `there is only "` + names[0] + `"`
	case len(names) == 0 || len(names) > 12:
		return ""
	}
	return "there are " + strings.Join(slices.Sorted(slices.Values(names)), ", ")
}
