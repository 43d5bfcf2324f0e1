package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ErrUnknownOutcome says that the connection was lost while a commit was under way: the transaction
// is either wholly there or wholly absent, and only the database can tell.
var ErrUnknownOutcome = errors.New("outcome of the commit is unknown")

// InTx runs f in a READ COMMITTED transaction: committed when f returns nil, rolled back otherwise,
// also on a panic. An error of f comes back as it is.
func InTx(ctx context.Context, db *sqlx.DB, f func(tx *sqlx.Tx) error) error {
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit this does nothing
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return commitError(ctx, err)
	}
	return nil
}

// commitError tells a refusal by the server, after which nothing has happened, from a lost answer. It goes by
// the SQLSTATE: the server translates the severity.
func commitError(ctx context.Context, err error) error {
	answer := answerOf(err)
	refused := answer != nil && !endsSession(string(answer.Code))
	if refused || ctx.Err() != nil && errors.Is(err, ctx.Err()) || errors.Is(err, pq.ErrInFailedTransaction) {
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("commit: %w: %w", ErrUnknownOutcome, err)
}

// endsSession tells the answers with which a server ends a session, also while it commits: those about the
// connection, a full disk, an operator's, a time-out of the session and an internal error. What has become of the
// commit they do not say. So it is with an answer that has no SQLSTATE.
func endsSession(state string) bool {
	switch classOf(state) {
	case "08", "53", "57", "58", "XX", "F0":
		return state != "57014" // the statement was cancelled, and the session goes on
	}
	return len(state) != 5 || state == "25P03" || state == "25P04"
}
