package arch_test

import (
	"go/ast"
	"testing"
)

// maxMethods is how many methods a type may have. Those that have more are in wide, with the number
// that they had when they were last changed: it may only become smaller.
const maxMethods = 30

var wide = map[string]int{}

// maxExported is how many names a package of the kit may export, methods included. Those that
// export more are in broad; the number may only become smaller.
const maxExported = 40

var broad = map[string]int{
	"admin":      73, // the audit needs what it finds, and what it compares; edit; why; load
	"outbox":     43, // one event by its id, for the chain of causes
	"consumer":   55,
	"fulfilment": 74,
	"eventstore": 53,
}

func TestCounts(t *testing.T) {
	methods, exported := map[string]int{}, map[string]int{}
	for _, f := range files(t) {
		if f.test() {
			continue
		}
		for _, d := range f.ast.Decls {
			receiver, names := declared(d)
			if receiver != "" {
				methods[f.dir()+"."+receiver]++
			}
			for _, name := range names {
				if f.public() && ast.IsExported(name) && (receiver == "" || ast.IsExported(receiver)) {
					exported[f.dir()]++
				}
			}
		}
	}
	compare(t, "methods", methods, maxMethods, wide)
	compare(t, "exported names", exported, maxExported, broad)
}

// compare fails where a number is above its limit, and where a limit of its own is higher than
// necessary.
func compare(t *testing.T, what string, found map[string]int, limit int, own map[string]int) {
	for name, n := range found {
		allowed, listed := own[name]
		switch {
		case !listed && n > limit:
			t.Errorf("%s has %d %s, at most %d", name, n, what, limit)
		case listed && n > allowed:
			t.Errorf("%s has %d %s, at most %d, which is too many already", name, n, what, allowed)
		}
	}
	for name, allowed := range own {
		if n := found[name]; n < allowed {
			t.Errorf("%s has only %d %s: lower its limit of %d, or remove it", name, n, what, allowed)
		}
	}
}

// declared returns the names that a declaration declares, and the type of a method.
func declared(d ast.Decl) (receiver string, names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv != nil {
			receiver = receiverOf(d.Recv.List[0].Type)
		}
		return receiver, []string{d.Name.Name}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				names = append(names, s.Name.Name)
			case *ast.ValueSpec:
				for _, n := range s.Names {
					names = append(names, n.Name)
				}
			}
		}
	}
	return "", names
}

// receiverOf returns the name of the type in T, *T, T[K] and *T[K, V].
func receiverOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiverOf(e.X)
	case *ast.IndexExpr:
		return receiverOf(e.X)
	case *ast.IndexListExpr:
		return receiverOf(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
