package pg

import (
	"context"
	"errors"
	"strings"

	"github.com/lib/pq"
)

// errDriver means that a new version of the driver no longer fits this package.
var errDriver = errors.New("the connections of this version of lib/pq lack a method that package " +
	"postgres needs: use the version in go.mod")

// kitMark is the prefix of each statement of Statements.
const kitMark = "/* kept prepared */ "

// byIndexSQL makes the planner use an index, which exists for each of the kit's own statements.
// A prepared statement keeps the plan that it got when the table was small, and would scan the
// whole table ever after. The user's statements keep the user's settings.
const byIndexSQL = `SET enable_seqscan = off; SET jit = off`

// usualSQL restores the planner settings of the user: those in the address, or the server's.
func usualSQL(runtime map[string]string) string {
	var list []string
	for _, name := range []string{"enable_seqscan", "jit"} {
		if value, set := runtime[name]; set {
			list = append(list, "SET "+name+" = "+pq.QuoteLiteral(value))
		} else {
			list = append(list, "RESET "+name)
		}
	}
	return strings.Join(list, "; ")
}

type byIndexKey struct{}

// ByIndex returns a context in which the planner uses an index for every statement, even if the
// table was small when the statement was planned. Use it only for statements that have an index.
func ByIndex(ctx context.Context) context.Context {
	return context.WithValue(ctx, byIndexKey{}, true)
}

// plannedByIndex reports whether a statement needs the settings of the kit. An INSERT of values
// reads no table, so the kit can add one to a user's transaction without a change of settings.
func plannedByIndex(ctx context.Context, query string) bool {
	text, kit := strings.CutPrefix(query, kitMark)
	return kit && !strings.HasPrefix(strings.TrimSpace(text), "INSERT") ||
		ctx.Value(byIndexKey{}) != nil
}

// setPlanner changes the planner's settings if the next statement needs others. A savepoint is
// a user's statement, so it is always made under the user's settings.
func (c *conn) setPlanner(ctx context.Context, byIndex bool) error {
	if c.reading {
		return errReading
	}
	if byIndex == c.byIndex {
		return nil
	}
	change := c.pool.usual
	if byIndex {
		change = byIndexSQL
	}
	_, err := c.session.ExecContext(ctx, change, nil)
	if pgErr := serverError(err); pgErr != nil && pgErr.Code == "25P02" {
		// The transaction has failed. The next statement fails as well, or returns to a savepoint.
		c.byIndex = false
		return nil
	}
	if err != nil {
		return c.checkError(err)
	}
	c.byIndex = byIndex
	return nil
}
