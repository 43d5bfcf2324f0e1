package arch_test

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"testing"
)

// everyColumn is an asterisk that takes the columns of a table as they are at the time. Those of
// unnest are named by the statement itself, and a view keeps those that it was created with.
var (
	everyColumn = regexp.MustCompile(
		`(?is)\bselect\s+(?:distinct\s+)?(?:\w+\.)?\*|\breturning\s+(?:\w+\.)?\*`)
	namedInSQL = regexp.MustCompile(
		`(?is)\bselect\s+\*\s+from\s+unnest\(|\bas select \* from (?:%s)?$|\bselect\s+next\.\*`)
)

// An asterisk returns the columns that a later release has added as well, which the structs of this
// one have no place for: each statement names its columns.
func TestStatementsNameTheirColumns(t *testing.T) {
	found := everyColumn.MatchString("SELECT * FROM orders") &&
		everyColumn.MatchString("UPDATE x SET y = 1 RETURNING t.*") &&
		!everyColumn.MatchString("SELECT count(*) FROM orders")
	if !found {
		t.Error("the expression does not find what it is for")
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
				t.Errorf("%s: name the columns: %s", f.set.Position(literal.Pos()), text)
			}
			return true
		})
	}
}
