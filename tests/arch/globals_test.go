package arch_test

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// constant lists the calls whose results are never changed.
var constant = []string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "prometheus.NewDesc"}

// mayBeGlobal lists the other package variables outside tests, with the reason for each. The test
// also checks that none of them is assigned to.
var mayBeGlobal = map[string]string{
	"check.now":                                 "a time, which cannot be a constant",
	"consumer.mapper":                           "a cache of type mappings; safe for concurrent use",
	"internal/boot.settings":                    "a table",
	"internal/demo.confirmed":                   "an expected end of an order, a plain value",
	"internal/demo.declined":                    "an expected end of an order, a plain value",
	"internal/demo.outOfStock":                  "an expected end of an order, a plain value",
	"internal/demo.notShipped":                  "an expected end of an order, a plain value",
	"internal/demo.cancelledEarly":              "an expected end of an order, a plain value",
	"internal/demo.cancelledLate":               "an expected end of an order, a plain value",
	"internal/demo.expired":                     "an expected end of an order, a plain value",
	"internal/demo.adopted":                     "an expected end of an order, a plain value",
	"internal/demo.refundRefused":               "an expected end of an order, a plain value",
	"internal/demo.recallRefused":               "an expected end of an order, a plain value",
	"internal/servertest.shared":                "the servers that all tests of a process share",
	"internal/servertest.drops":                 "the databases that the tests of a process drop",
	"internal/localrun.serversScript":           "an embedded file",
	"internal/fulfilment/inventory.Participant": "pure functions in a struct",
	"internal/fulfilment/orders.Participant":    "pure functions in a struct",
	"internal/fulfilment/payments.Participant":  "pure functions in a struct",
	"internal/fulfilment/shipping.Countries":    "a table",
	"internal/fulfilment/simulator.calls":       "a table",
	"internal/fulfilment/simulator.verbs":       "a table",
}

// TestNoInitAndNoGlobals checks that the state of a program is in values: no code runs before main,
// and a package variable is never changed.
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
				t.Errorf(
					"%s: %s is a package variable: make it a field or a constant, or add it to mayBeGlobal",
					f.path, name)
			}
		}
	}
	for global := range mayBeGlobal {
		if !found[global] {
			t.Errorf("%s does not exist: remove it from mayBeGlobal", global)
		}
	}
	for _, f := range files {
		if f.test() {
			continue
		}
		for _, name := range assigned(f) {
			if global := filepath.ToSlash(f.dir()) + "." + name; found[global] ||
				declaresError(files, f.dir(), name) {
				t.Errorf("%s assigns to the package variable %s", f.path, name)
			}
		}
	}
}

// globals returns the package variables of a file, except those that are never changed: errors,
// compiled expressions, embedded folders and assertions that a type implements an interface.
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
	if _, name, ok := strings.Cut(selector(value), "."); ok && strings.HasPrefix(name, "Err") {
		return true // the error of another package
	}
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

// assigned returns the names that a file assigns to, elements and fields included, and that none of
// its functions declares.
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
	// shared is guarded by its own lock
	return slices.DeleteFunc(names, func(name string) bool { return name == "shared" })
}

// declaresError reports whether a package declares a variable of that name, such as an error, which
// globals does not list.
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
