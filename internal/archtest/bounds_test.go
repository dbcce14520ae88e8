package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// bound finds what a message says may not be exceeded.
var bound = regexp.MustCompile(`(?:more|longer|larger) than ([0-9]+(?: [KM]iB)?)`)

// A message that names a number sends its reader to look for that number.
func TestBoundsThatMessagesNameAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(b), "### Fixed bounds\n")
	if !ok {
		t.Fatal("docs/configuration.md has no section Fixed bounds")
	}
	table, _, _ = strings.Cut(table, "\n### ")
	found := 0
	for _, s := range program(t) {
		if strings.HasPrefix(s.pkg(), "bench") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root(t), s.path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range bound.FindAllStringSubmatch(text, -1) {
				found++
				if !regexp.MustCompile(`\| ` + m[1] + `\b`).MatchString(table) {
					t.Errorf("%s says %q; docs/configuration.md has no fixed bound of %s", s.path, m[0], m[1])
				}
			}
			return true
		})
	}
	if found == 0 {
		t.Error("no message with a bound was found")
	}
}
