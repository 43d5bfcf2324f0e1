package arch_test

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"testing"
)

// everyColumn finds an asterisk that selects all columns which the table has at run time.
// namedInSQL finds the harmless ones: a statement names the columns of unnest itself, and a view
// keeps the columns with which it was created.
var (
	everyColumn = regexp.MustCompile(
		`(?is)\bselect\s+(?:distinct\s+)?(?:\w+\.)?\*|\breturning\s+(?:\w+\.)?\*`)
	namedInSQL = regexp.MustCompile(
		`(?is)\bselect\s+\*\s+from\s+unnest\(|\bas select \* from (?:%s)?$|\bselect\s+next\.\*`)
)

// An asterisk would also return columns that a later release adds, for which the structs of this
// release have no field. Each statement therefore names its columns.
func TestStatementsNameTheirColumns(t *testing.T) {
	found := everyColumn.MatchString("SELECT * FROM orders") &&
		everyColumn.MatchString("UPDATE x SET y = 1 RETURNING t.*") &&
		!everyColumn.MatchString("SELECT count(*) FROM orders")
	if !found {
		t.Error("everyColumn does not recognise its examples")
	}
	for _, f := range files(t) {
		if f.test() || f.support() {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Errorf("%s: %v", f.path, err)
			}
			if everyColumn.MatchString(namedInSQL.ReplaceAllString(text, "")) {
				t.Errorf("%s: name the columns instead of using an asterisk: %s", f.set.Position(literal.Pos()),
					text)
			}
			return true
		})
	}
}
