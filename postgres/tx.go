package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ErrUnknownOutcome says that the connection was lost while a commit was under way: the transaction
// is either wholly there or wholly absent, and only the database can tell.
var ErrUnknownOutcome = errors.New("outcome of the commit is unknown")

// InTx runs f in a READ COMMITTED transaction: committed when f returns nil, rolled back otherwise,
// also on a panic. An error of f comes back as it is. In a pool of Open f cannot commit, neither by
// the method nor by a statement of its own: half of what belongs together would be in the database.
func InTx(ctx context.Context, db *sqlx.DB, f func(tx *sqlx.Tx) error) error {
	var mayEnd atomic.Bool
	tx, err := db.BeginTxx(context.WithValue(ctx, mayEndKey{}, &mayEnd), nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit this does nothing
	if err := f(tx); err != nil {
		return err
	}
	mayEnd.Store(true)
	if err := tx.Commit(); err != nil {
		return commitError(ctx, err)
	}
	return nil
}

// mayEndKey is where a context tells whether the transaction that begins with it may end.
type mayEndKey struct{}

// errNotItsOwn refuses the end of a transaction to the code that only runs in it.
var errNotItsOwn = errors.New("the transaction is ended by the one who began it, not by the code " +
	"that runs in it: return an error to roll back")

// mustNotEnd tells whether the code that InTx runs has not returned yet.
func (c *conn) mustNotEnd() bool { return c.inTx && c.mayEnd != nil && !c.mayEnd.Load() }

// endsTransaction tells whether a statement ends a transaction; ROLLBACK TO does not.
func endsTransaction(query string) bool {
	words := strings.Fields(strings.ToUpper(query[:min(len(query), maxEnding)]))
	if len(words) == 0 {
		return false
	}
	switch strings.TrimRight(words[0], ";") {
	case "COMMIT", "END", "ABORT":
		return true
	case "ROLLBACK":
		return !slices.Contains(words, "TO")
	case "PREPARE":
		return len(words) > 1 && words[1] == "TRANSACTION"
	}
	return false
}

// maxEnding is how much of a statement is looked at.
const maxEnding = 64

// commitError tells a refusal by the server, after which nothing has happened, from a lost answer.
// It goes by the SQLSTATE: the server translates the severity.
func commitError(ctx context.Context, err error) error {
	if errors.Is(err, sql.ErrTxDone) { // it was rolled back before
		return fmt.Errorf("commit: %w: %w", errNotItsOwn, err)
	}
	answer := answerOf(err)
	refused := answer != nil && !endsSession(string(answer.Code))
	if refused || ctx.Err() != nil && errors.Is(err, ctx.Err()) ||
		errors.Is(err, pq.ErrInFailedTransaction) {
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("commit: %w: %w", ErrUnknownOutcome, err)
}

// endsSession tells the answers with which a server ends a session, also while it commits: those
// about the connection, a full disk, an operator's, a time-out of the session and an internal
// error. What has become of the commit they do not say. So it is with an answer that has no
// SQLSTATE.
func endsSession(state string) bool {
	switch classOf(state) {
	case "08", "53", "57", "58", "XX", "F0":
		return state != "57014" // the statement was cancelled, and the session goes on
	}
	return len(state) != 5 || state == "25P03" || state == "25P04"
}
