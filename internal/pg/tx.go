package pg

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

// ErrUnknownOutcome means that the connection was lost during a commit. The transaction is
// committed or rolled back as a whole, and only the database knows which.
var ErrUnknownOutcome = errors.New("outcome of the commit is unknown")

// InTx runs f in a READ COMMITTED transaction. It commits if f returns nil and rolls back
// otherwise, also on a panic. It returns an error of f unchanged. In a pool of Open, f itself
// cannot commit, neither with the method nor with a statement, since half of its writes would then
// be committed without the rest.
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

// InSnapshot runs f in a transaction that only reads, and that sees the database as it is now,
// however long f takes. Its statements have no time-out of their own: ctx bounds them.
func InSnapshot(ctx context.Context, db *sqlx.DB, f func(tx *sqlx.Tx) error) error {
	tx, err := db.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it has changed nothing
	if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return f(tx)
}

// mayEndKey is the context key of the flag that permits the end of a transaction.
type mayEndKey struct{}

// errNotOwner refuses a commit or a rollback by the code that InTx runs.
var errNotOwner = errors.New(
	"only the code that began the transaction may end it, not a function " +
		"that runs in it: return an error to roll back")

// mustNotEnd reports whether the function that InTx runs has not returned yet.
func (c *conn) mustNotEnd() bool { return c.inTx && c.mayEnd != nil && !c.mayEnd.Load() }

// endsTransaction reports whether a statement ends a transaction. ROLLBACK TO does not.
func endsTransaction(query string) bool {
	words := strings.Fields(strings.ToUpper(query[:min(len(query), endingPrefix)]))
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

// endingPrefix is how many bytes of a statement endsTransaction reads.
const endingPrefix = 64

// commitError distinguishes a commit that the server refused, which changed nothing, from one
// whose answer was lost. It decides by the SQLSTATE, since a server translates the severity.
func commitError(ctx context.Context, err error) error {
	if errors.Is(err, sql.ErrTxDone) { // the transaction has ended already
		return fmt.Errorf("commit: %w: %w", errNotOwner, err)
	}
	pgErr := serverError(err)
	refused := pgErr != nil && !endsSession(string(pgErr.Code))
	if refused || ctx.Err() != nil && errors.Is(err, ctx.Err()) ||
		errors.Is(err, pq.ErrInFailedTransaction) {
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("commit: %w: %w", ErrUnknownOutcome, err)
}

// endsSession reports whether an error ends the session, even during a commit: an error of the
// connection, a full disk, an intervention by an operator, a time-out of the session or an internal
// error. Such an error does not say whether the commit happened. Neither does one that has no
// SQLSTATE.
func endsSession(state string) bool {
	switch classOf(state) {
	case "08", "53", "57", "58", "XX", "F0":
		return state != "57014" // the statement was cancelled, and the session continues
	}
	return len(state) != 5 || state == "25P03" || state == "25P04"
}
