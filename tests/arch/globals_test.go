package arch_test

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"testing"
)

// constant lists the calls whose results nobody changes.
var constant = []string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "prometheus.NewDesc"}

// mayBeGlobal lists the other variables of packages, tests apart, with the reason for each. None of
// them is assigned to, which the test sees to.
var mayBeGlobal = map[string]string{
	"check.now":       "a moment, which cannot be a constant",
	"consumer.mapper": "a cache of how types are mapped, safe to share; the same for everybody",
	"consumer/internal/consumertest.patience": "a flag of go test",
	"internal/demo.confirmed":                 "an end of an order, a plain value",
	"internal/demo.declined":                  "an end of an order, a plain value",
	"internal/demo.outOfStock":                "an end of an order, a plain value",
	"internal/demo.notShipped":                "an end of an order, a plain value",
	"internal/demo.cancelledEarly":            "an end of an order, a plain value",
	"internal/demo.cancelledLate":             "an end of an order, a plain value",
	"internal/demo.expired":                   "an end of an order, a plain value",
	"internal/demo.adopted":                   "an end of an order, a plain value",
	"internal/demo.refundRefused":             "an end of an order, a plain value",
	"internal/demo.recallRefused":             "an end of an order, a plain value",
	"internal/devstack.shared":                "the servers that all tests of a process share",
	"internal/devstack.drops":                 "the databases that the tests of a process drop",
	"internal/devstack.stackScript":           "an embedded file",
	"internal/inventory.Participant":          "pure functions in a struct",
	"internal/orders.Participant":             "pure functions in a struct",
	"internal/payments.Participant":           "pure functions in a struct",
	"internal/shipping.Countries":             "a table",
	"internal/simulator.calls":                "a table",
	"internal/simulator.verbs":                "a table",
}

// TestNoInitAndNoGlobals: a program's state is in values. Nothing runs before main, and what a
// package keeps in a variable is a constant in all but name.
func TestNoInitAndNoGlobals(t *testing.T) {
	found := map[string]bool{}
	files := files(t)
	for _, f := range files {
		if f.test() {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s has an init function", f.path)
			}
		}
		for _, name := range globals(f) {
			global := filepath.ToSlash(f.dir()) + "." + name
			found[global] = true
			if mayBeGlobal[global] == "" {
				t.Errorf("%s: the variable %s is state outside of values: make it a field or a constant",
					f.path, name)
			}
		}
	}
	for global := range mayBeGlobal {
		if !found[global] {
			t.Errorf("%s is gone: take it off the list", global)
		}
	}
	for _, f := range files {
		if f.test() {
			continue
		}
		for _, name := range assigned(f) {
			if global := filepath.ToSlash(f.dir()) + "." + name; found[global] ||
				declaresError(files, f.dir(), name) {
				t.Errorf("%s assigns to %s, a variable of the package", f.path, name)
			}
		}
	}
}

// globals returns the variables of a file that are not constants in all but name: errors, compiled
// expressions, embedded folders and assertions that a type has an interface.
func globals(f file) (names []string) {
	for _, d := range f.ast.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			for i, name := range v.Names {
				if name.Name != "_" && selector(v.Type) != "embed.FS" &&
					(i >= len(v.Values) || !isConstant(v.Values[i])) {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

func isConstant(value ast.Expr) bool {
	call, ok := value.(*ast.CallExpr)
	return ok && slices.Contains(constant, selector(call.Fun))
}

func selector(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name + "." + s.Sel.Name
		}
	}
	return ""
}

// assigned returns the names that a file assigns to, elements and fields included, and that no
// function of it declares.
func assigned(f file) (names []string) {
	note := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
				continue
			case *ast.SelectorExpr:
				e = x.X
				continue
			case *ast.Ident:
				if x.Obj == nil || f.ast.Scope.Lookup(x.Name) == x.Obj {
					names = append(names, x.Name)
				}
			}
			return
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.AssignStmt:
			for _, left := range s.Lhs {
				if s.Tok != token.DEFINE {
					note(left)
				}
			}
		case *ast.IncDecStmt:
			note(s.X)
		}
		return true
	})
	// guarded by its own lock
	return slices.DeleteFunc(names, func(name string) bool { return name == "shared" })
}

// declaresError tells whether a package has a variable of that name that is a constant otherwise.
func declaresError(files []file, dir, name string) bool {
	for _, f := range files {
		if f.dir() != dir || f.test() {
			continue
		}
		if o := f.ast.Scope.Lookup(name); o != nil && o.Kind == ast.Var {
			return true
		}
	}
	return false
}
