package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/mtls-proxy/mtls-proxy"

// source is one Go file.
type source struct {
	path string // from the root of the repository
	file *ast.File
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// pkg names the package the way the page does: without module and internal/.
func (s source) pkg() string {
	return strings.TrimPrefix(filepath.ToSlash(filepath.Dir(s.path)), "internal/")
}

func (s source) imports() []string {
	paths := make([]string, len(s.file.Imports))
	for i, spec := range s.file.Imports {
		paths[i], _ = strconv.Unquote(spec.Path.Value)
	}
	return paths
}

// root finds the repository from the folder in which tests run.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for !exists(filepath.Join(dir, "go.mod")) {
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above this test")
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// walk calls f for every file of this module, with its path from the root. What
// begins with a dot, test data, and modules within ours are left out.
func walk(t *testing.T, f func(path string, d fs.DirEntry)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == top {
			return nil
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "dist" || exists(filepath.Join(path, "go.mod"))) {
			return filepath.SkipDir
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		f(rel, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file, for whatever system it is.
func sources(t *testing.T) []source {
	t.Helper()
	top, set := root(t), token.NewFileSet()
	var all []source
	walk(t, func(path string, d fs.DirEntry) {
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return
		}
		file, err := parser.ParseFile(set, filepath.Join(top, path), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{path, file})
	})
	return all
}

// program returns what the program is built from: no tests, no tools.
func program(t *testing.T) []source {
	t.Helper()
	return slices.DeleteFunc(sources(t), func(s source) bool {
		inProgram := strings.HasPrefix(s.path, "cmd/") || strings.HasPrefix(s.path, "internal/")
		return s.test() || !inProgram
	})
}

// page returns the lines of docs/architecture.md.
func page(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// fenced returns the lines of the page's code block of that language.
func fenced(t *testing.T, language string) []string {
	t.Helper()
	lines := page(t)
	start := slices.Index(lines, "```"+language)
	if start < 0 {
		t.Fatalf("docs/architecture.md has no block ```%s", language)
	}
	end := slices.Index(lines[start+1:], "```")
	if end < 0 {
		t.Fatalf("the block ```%s of docs/architecture.md has no end", language)
	}
	return lines[start+1 : start+1+end]
}
