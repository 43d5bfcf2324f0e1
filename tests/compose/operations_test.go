package compose_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/topology"
)

const guide = "docs/operations.md"

func TestGuideListsThePermissions(t *testing.T) {
	p := topology.PermissionOf("orders")
	row := fmt.Sprintf("| the service `orders` | `%s` | `%s` | `%s` |", p.Configure, p.Write,
		strings.ReplaceAll(p.Read, "|", `\|`))
	if !strings.Contains(read(t, guide), row) {
		t.Errorf("docs/operations.md lacks the row %s", row)
	}
}

// TestGuideListsTheBounds compares each bound of the guide with the constant in the source.
func TestGuideListsTheBounds(t *testing.T) {
	rows := regexp.MustCompile(
		"(?m)^\\| `([a-z]+)\\.([A-Za-z]+)` \\| ([0-9a-z]+) \\|").FindAllStringSubmatch(read(t, guide), -1)
	if len(rows) < 20 {
		t.Fatalf("docs/operations.md has only %d bounds in the expected form, want at least 20",
			len(rows))
	}
	for _, row := range rows {
		dir := row[1]
		switch dir {
		case "web", "rabbit", "pg", "inbox", "engine", "telemetry":
			dir = "internal/" + dir
		case "cdc":
			dir = "outbox/cdc"
		case "quadrille":
			dir = "."
		}
		value, known := bound(t, dir, row[2])
		if d, err := time.ParseDuration(row[3]); err == nil && row[3] != "0" {
			known, row[3] = known && d > 0, fmt.Sprint(int64(d))
		}
		if !known || value != row[3] {
			t.Errorf("docs/operations.md: %s.%s is %s in the source, not %s", row[1], row[2], value, row[3])
		}
	}
}

// bound returns the value of a constant of a package, in nanoseconds if it is a duration.
func bound(t *testing.T, dir, name string) (value string, known bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			for i := 0; ok && i < len(spec.Values); i++ {
				if spec.Names[i].Name == name {
					if v := evaluate(spec.Values[i]); v != nil {
						value, known = v.ExactString(), true
					}
				}
			}
			return true
		})
	}
	return value, known
}

// evaluate evaluates numbers, time units, and binary expressions of them.
func evaluate(e ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.SelectorExpr:
		units := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second,
			"Minute": time.Minute, "Hour": time.Hour}
		if unit, ok := units[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(unit))
		}
	case *ast.BinaryExpr:
		x, y := evaluate(e.X), evaluate(e.Y)
		if x == nil || y == nil {
			return nil
		}
		if n, ok := constant.Uint64Val(y); ok && e.Op == token.SHL {
			return constant.Shift(x, e.Op, uint(n))
		}
		return constant.BinaryOp(x, e.Op, y)
	}
	return nil
}
