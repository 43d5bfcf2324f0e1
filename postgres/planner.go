package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/lib/pq"
)

// errDriver is a mistake in this package.
var errDriver = errors.New("the driver lacks what a session needs")

// kitMark begins each statement of Statements.
const kitMark = "/* kept prepared */ "

// The settings of a session for the kit's own statements. A prepared statement keeps the plan of
// its first days: made when a table was small, it reads all of it ever after. With these the
// planner takes the index that every such statement has. A user's statements are planned as usual.
const byIndexSQL = `SET enable_seqscan = off; SET jit = off`

// usualSQL brings the planner's settings of a user back: those that the URL names, or the server's.
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

// ByIndex returns a context in which statements are planned to use an index, whatever the size of
// a table was when they were. It is for those that have one.
func ByIndex(ctx context.Context) context.Context {
	return context.WithValue(ctx, byIndexKey{},
		true)
}

// plannedByIndex tells whether a statement wants the settings of the kit. An INSERT of given values
// reads no table, so that a transaction of a user's own statements needs no change for it.
func plannedByIndex(ctx context.Context, query string) bool {
	text, kit := strings.CutPrefix(query, kitMark)
	return kit && !strings.HasPrefix(strings.TrimSpace(text), "INSERT") ||
		ctx.Value(byIndexKey{}) != nil
}

// plan changes the planner's settings where they are not those that the next statement wants. A
// savepoint is always made under the usual ones, since it is a user's statement.
func (c *conn) plan(ctx context.Context, byIndex bool) error {
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
	if answer := answerOf(err); answer != nil && answer.Code == "25P02" {
		// The transaction has failed. The statement tells so, or it returns to a savepoint.
		c.byIndex = false
		return nil
	}
	if err != nil {
		return c.judge(err)
	}
	c.byIndex = byIndex
	return nil
}
