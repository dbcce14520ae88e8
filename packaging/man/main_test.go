package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

const document = "../../docs/configuration.md"

// The manual page has every key that the document has, with kind, default and meaning.
func TestThePageHasEveryKey(t *testing.T) {
	var page bytes.Buffer
	if err := run([]string{"mtls-proxy.toml.5", document}, &page); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile("(?m)^\\| `([a-z_]+\\.[A-Za-z_.]+)` \\|").FindAllStringSubmatch(string(text), -1)
	if len(keys) < 100 {
		t.Fatalf("the document has %d keys; want at least 100", len(keys))
	}
	for _, key := range keys {
		if want := "\n.TP\n\\fB" + key[1] + "\\fR\n"; !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %s", key[1])
		}
	}
	for _, want := range []string{
		"\n.TP\n\\fBupstream.NAME.retry.attempts\\fR\nnumber, default \\fB2\\fR: tries after the first; 0 for none, at most 10\n",
		"\n.TP\n\\fBadmin.tls.client_ca\\fR\n",
		"\n.SS Circuit breaker\n",
		"\n.SH EXAMPLE\n",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if rest := regexp.MustCompile("`|(?m)^(\\||#|@|\\*)|\\]\\(").FindString(page.String()); rest != "" {
		t.Errorf("the page has Markdown in it: %q", rest)
	}
}

func TestRoff(t *testing.T) {
	for _, tt := range []struct{ name, markdown, want string }{
		{"paragraph of two lines", "one\ntwo `a-b`", ".PP\none two \\fBa\\-b\\fR\n"},
		{"a dot and a backslash do nothing", "... `\\n`\n\n'x", ".PP\n\\&... \\fB\\en\\fR\n.PP\n\\&'x\n"},
		{"link", "see [the page](x.md#y), [`x`](y.md), `[[route]]` (RFC 1)", ".PP\nsee the page, \\fBx\\fR, \\fB[[route]]\\fR (RFC 1)\n"},
		{"items", "* one\n  more\n* two", ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo\n"},
		{"keys", "| Key | Kind | Default | Meaning |\n|---|---|---|---|\n| `a.b` | list | `[]` | some `\"x\"` \\| y |", ".TP\n\\fBa.b\\fR\nlist, default \\fB[]\\fR: some \\fB\"x\"\\fR | y\n"},
		{"other tables", "| A | B | C |\n|---|---|---|\n| on `\"x\"` | b | c |", ".TP\n\\fBon \"x\"\\fR\nb; c\n"},
		{"example", "### Title\n```toml\n[a]\n.b = 1\n```", ".SS Title\n.PP\n.EX\n[a]\n\\&.b = 1\n.EE\n"},
	} {
		if got := roff(strings.Split(tt.markdown, "\n")); got != tt.want {
			t.Errorf("%s: roff(%q) = %q; want %q", tt.name, tt.markdown, got, tt.want)
		}
	}
}

func TestSectionsThatAreNotThereAreAnError(t *testing.T) {
	for _, page := range []string{"no mark\n", "@Identities Nonsense@\n", "@Operators Identities@\n"} {
		if text, err := complete(page, "## Identities\n\n## Operators\n"); err == nil {
			t.Errorf("complete(%q) = %q; want an error", page, text)
		}
	}
}
