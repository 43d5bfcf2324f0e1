// Package postgres gives a program the access to PostgreSQL that the kit itself has: a pool with
// bounds on everything, transactions with a known outcome, classes of errors, and migrations.
// Leader does work that only one of the replicas may do.
//
// A transaction has one of three outcomes, and the caller learns which: committed, rolled back, or
// unknown (ErrUnknownOutcome). The package never logs, and none of its errors contains a password.
// It contains no business SQL, and a service that only handles events does not need it.
package postgres

import (
	"context"
	"io/fs"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

var (
	// ErrUnknownOutcome means that the connection was lost during a commit. The transaction is
	// committed or rolled back as a whole, and only the database knows which.
	ErrUnknownOutcome = pg.ErrUnknownOutcome
	// ErrRaced means that another transaction inserted the same row first. Its class is Retry.
	ErrRaced = pg.ErrRaced
	// ErrSuperseded means that another replica has taken the lead and that nothing was written.
	ErrSuperseded = pg.ErrSuperseded
)

// Open returns a pool for the address of a database: a postgres:// URL or key=value pairs, with
// several hosts if it is replicated. Open does not connect. Every session has a bound of 30 seconds
// for a statement and for an idle transaction, and of 10 seconds for a lock, unless the address
// sets others; the pool has at most 16 sessions.
func Open(address string) (*sqlx.DB, error) { return pg.Open(address) }

// InTx runs f in a READ COMMITTED transaction. It commits if f returns nil and rolls back
// otherwise, also on a panic. It returns an error of f unchanged. In a pool of Open, f itself
// cannot commit, neither with the method nor with a statement, since half of its writes would then
// be committed without the rest.
func InTx(ctx context.Context, db *sqlx.DB, f func(tx *sqlx.Tx) error) error {
	return pg.InTx(ctx, db, f)
}

// Migrate applies the pending migrations of one line. A line is the ordered list of migrations of
// one owner, such as a service; the table migrations_<line> stores its versions. Replicas may call
// Migrate at the same time: one of them migrates, and the others wait.
//
// A migration fails if it waits for a lock for more than five seconds, since all other transactions
// queue behind it. A migration that is marked NO TRANSACTION, for CREATE INDEX CONCURRENTLY, has no
// such bound. If it fails and leaves an invalid index, the next attempt drops that index first.
func Migrate(ctx context.Context, address, line string, files fs.FS) error {
	return pg.Migrate(ctx, address, line, files)
}

// Class tells the caller how to react to an error of the database.
type Class int

// The classes of errors.
const (
	// Other is not an error of the database, or it is a mistake in the SQL: a retry does not help.
	Other = Class(pg.Other)
	// Retry means that the transaction can run again at once: another transaction was first,
	// a deadlock was broken, or a statement was outdated.
	Retry = Class(pg.Retry)
	// Busy means that the transaction can run again after a wait: a lock or a statement took too
	// long, or resources ran out.
	Busy = Class(pg.Busy)
	// Lost means that the connection or the server is gone, or that the server became read-only.
	Lost = Class(pg.Lost)
	// BadData means that the server refuses the value itself, and will refuse it again.
	BadData = Class(pg.BadData)
)

// ClassOf classifies err by its SQLSTATE, and a failure of the connection by its type.
func ClassOf(err error) Class { return Class(pg.ClassOf(err)) }

// JSON is the value of a column of type json or jsonb, for a struct whose fields are columns.
// A column that is NULL leaves the zero value.
type JSON[T any] = pg.JSON[T]
