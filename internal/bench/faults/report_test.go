//go:build linux

package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// options are the flags of the test binary.
type options struct {
	table string
}

var chosen atomic.Pointer[options]

// long reports whether figures are wanted rather than an answer soon.
func long() bool { return chosen.Load().table != "" }

// printed is the tables of this run.
var printed book

// book is tables, in the order in which they were begun.
type book struct {
	mu    sync.Mutex // guards what follows
	names []string
	rows  map[string][]row
}

// row is what one scenario came to.
type row struct {
	name, callers string
	arrived       int // requests at the upstream
	again         int // of these, those that had arrived before
	p50, p99      time.Duration
	before, after footprint
}

func (b *book) add(table string, r row) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rows == nil {
		b.rows = make(map[string][]row)
	}
	if b.rows[table] == nil {
		b.names = append(b.names, table)
	}
	b.rows[table] = append(b.rows[table], r)
}

// markdown is all of it.
func (b *book) markdown() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	for _, name := range b.names {
		fmt.Fprintf(&text, "### %s\n\n", name)
		text.WriteString("| fault | callers saw | the upstream was asked, again | p50, p99 in ms | goroutines | descriptors | MiB |\n|---|---|--:|--:|--:|--:|--:|\n")
		for _, r := range b.rows[name] {
			fmt.Fprintf(&text, "| %s | %s | %d, %d | %s, %s | %d → %d | %d → %d | %d → %d |\n", r.name, r.callers, r.arrived, r.again,
				millis(r.p50), millis(r.p99), r.before.goroutines, r.after.goroutines, r.before.descriptors, r.after.descriptors,
				r.before.resident>>10, r.after.resident>>10)
		}
		text.WriteByte('\n')
	}
	return text.String()
}

func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms >= 10 {
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.1f", ms)
}

// summary writes down what callers saw, the most frequent first, and which methods had other answers than 200, unless all
// had.
func (t *tally) summary() string {
	answers := t.sum()
	names := slices.SortedFunc(maps.Keys(answers), func(a, b string) int {
		if answers[a] != answers[b] {
			return answers[b] - answers[a]
		}
		return strings.Compare(a, b)
	})
	parts := make([]string, len(names))
	for i, name := range names {
		status, fault, _ := strings.Cut(name, " ")
		parts[i] = fmt.Sprintf("%d × %s", answers[name], status)
		if fault != "" {
			parts[i] += " `" + fault + "`"
		}
		if name == "200" {
			continue
		}
		var methods []string
		for _, method := range slices.Sorted(maps.Keys(t.answers)) {
			if method != "" && t.answers[method][name] > 0 {
				methods = append(methods, method)
			}
		}
		if len(methods) > 0 && len(methods) < len(t.answers) {
			parts[i] += " (" + strings.Join(methods, ", ") + ")"
		}
	}
	return strings.Join(parts, ", ")
}
