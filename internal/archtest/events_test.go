package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"testing"
)

// Records that operators see have an event, so that alerts and journalctl -x find them. Those of debug and trace are for
// developers.
func TestEveryRecordForOperatorsHasAnEvent(t *testing.T) {
	found := 0
	for _, s := range program(t) {
		if s.pkg() == "logging" {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(root(t), s.path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !isLogger(method.X) || !slices.Contains([]string{"Info", "Warn", "Error"}, method.Sel.Name) {
				return true
			}
			found++
			if !slices.ContainsFunc(call.Args, isEventKey) {
				t.Errorf("%s: a call of %s without an event", fset.Position(call.Pos()), method.Sel.Name)
			}
			return true
		})
	}
	if found == 0 {
		t.Error("no call that makes a record was found")
	}
}

// isLogger reports whether x is called logger, or what a method Logger returned.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "logger"
	case *ast.SelectorExpr:
		return x.Sel.Name == "logger"
	case *ast.CallExpr:
		method, ok := x.Fun.(*ast.SelectorExpr)
		return ok && method.Sel.Name == "Logger"
	}
	return false
}

func isEventKey(x ast.Expr) bool {
	lit, ok := x.(*ast.BasicLit)
	return ok && lit.Value == `"event"`
}
