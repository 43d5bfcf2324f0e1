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
)

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
	return commit(ctx, tx)
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
