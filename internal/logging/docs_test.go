package logging

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// column returns the words in backquotes that begin the rows of the table under that heading row.
func column(t *testing.T, page, head string) []string {
	t.Helper()
	_, table, ok := strings.Cut(page, head+"\n")
	if !ok {
		t.Fatalf("docs/logging.md has no table %q", head)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var words []string
	for row := range strings.Lines(table) {
		if cell, ok := strings.CutPrefix(row, "| `"); ok {
			word, _, _ := strings.Cut(cell, "`")
			words = append(words, word)
		}
	}
	return words
}

func docs(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "logging.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDocsListEveryFieldOfARequest(t *testing.T) {
	r := record{kind: exchangeFailed, err: "x", requestID: "x", method: "x", host: "x", path: "x", exchange: ExchangeRecord{
		Policy: &Policy{Slow: 1}, Duration: time.Second, Listener: "x", Route: "x", Upstream: "x", Fault: "x", Blame: "x",
		Summary: "x", Fix: "x", Err: errors.New("x"), Caller: "x", Unit: "x", Retries: 1,
	}}
	var want []string
	for _, f := range r.appendFields(nil) {
		want = append(want, f.key)
	}
	if got := column(t, docs(t), "| field | tells |"); !slices.Equal(got, want) {
		t.Errorf("docs/logging.md has the fields\n%q, want\n%q", got, want)
	}
}

func TestDocsListEveryEvent(t *testing.T) {
	page := docs(t)
	var want []string
	for e := NoEvent + 1; e < events; e++ {
		want = append(want, e.String())
		if row := "| `" + e.String() + "` | `" + e.MessageID() + "` |"; !strings.Contains(page, row) {
			t.Errorf("docs/logging.md has no row that begins %s", row)
		}
	}
	if got := column(t, page, "| event | MESSAGE_ID | level | tells |"); !slices.Equal(got, want) {
		t.Errorf("docs/logging.md has the events\n%q, want\n%q", got, want)
	}
}
