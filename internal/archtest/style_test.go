package archtest

import (
	"go/ast"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestEveryPackageSaysOnceWhatItIs(t *testing.T) {
	said := make(map[string][]string)
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		if _, ok := said[s.pkg()]; !ok {
			said[s.pkg()] = nil
		}
		if s.file.Doc == nil {
			continue
		}
		said[s.pkg()] = append(said[s.pkg()], s.path)
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			want = "Command " + filepath.Base(s.pkg()) + " "
		}
		if text := s.file.Doc.Text(); !strings.HasPrefix(text, want) {
			t.Errorf("%s begins %.40q; want %q", s.path, text, want)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(said)) {
		if len(said[pkg]) != 1 {
			t.Errorf("%s has %d package comments, in %v; want one", pkg, len(said[pkg]), said[pkg])
		}
	}
}

func TestDirectoriesAreNamedAfterWhatTheyHold(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "types"}
	walk(t, func(path string, d fs.DirEntry) {
		if d.IsDir() && slices.Contains(vague, strings.ToLower(d.Name())) {
			t.Errorf("%s could hold anything: name it after its noun", path)
		}
	})
}

func TestNothingHappensBeforeMain(t *testing.T) {
	for _, s := range program(t) {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: let a constructor do it, so that a test can, too", s.path)
			}
		}
	}
}

// The linker leaves out methods that nobody calls, unless something in the program may call them by name. Templates do:
// with one of them the program is half as large again, all of it in memory's way.
func TestNothingCallsMethodsByName(t *testing.T) {
	byName := []string{
		"SetVersionTemplate", "SetUsageTemplate", "SetHelpTemplate", "AddTemplateFunc", "AddTemplateFuncs", // cobra's
		"MethodByName",
	}
	for _, s := range program(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.SelectorExpr); ok && slices.Contains(byName, call.Sel.Name) {
				t.Errorf("%s calls %s: then the linker keeps every method there is", s.path, call.Sel.Name)
			}
			return true
		})
	}
}

// A lock, a channel or an empty map at package level is there to be changed, and
// then two tests, or two generations, share what they should not.
func TestPackagesHoldNoState(t *testing.T) {
	for _, s := range program(t) {
		for _, decl := range s.file.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if changes(v) {
					t.Errorf("%s: package variable %s is state: give it to a value that someone owns", s.path, v.Names[0].Name)
				}
			}
		}
	}
}

func changes(v *ast.ValueSpec) bool {
	found := false
	look := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ChanType:
			found = true
		case *ast.SelectorExpr:
			if from, ok := n.X.(*ast.Ident); ok && (from.Name == "sync" || from.Name == "atomic") {
				found = true
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "make" {
				found = true
			}
		}
		return true
	}
	if v.Type != nil {
		ast.Inspect(v.Type, look)
	}
	for _, value := range v.Values {
		ast.Inspect(value, look)
	}
	return found
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	top := root(t)
	walk(t, func(path string, d fs.DirEntry) {
		if filepath.Ext(path) != ".md" {
			return
		}
		text, err := os.ReadFile(filepath.Join(top, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], ":") {
				continue // another site
			}
			if !exists(filepath.Join(top, filepath.Dir(path), m[1])) {
				t.Errorf("%s links to %s, which is not there", path, m[1])
			}
		}
	})
}
