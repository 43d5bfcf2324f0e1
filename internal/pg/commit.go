package pg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ErrUnknownOutcome means that the connection was lost during a commit, or that the commit took
// longer than its caller waited. The transaction is committed or rolled back as a whole, and only
// the database knows which.
var ErrUnknownOutcome = errors.New("outcome of the commit is unknown")

// errUnreplicated is the error of a write that the server has committed without its synchronous
// standby.
var errUnreplicated = fmt.Errorf("%w: the server has stopped waiting for a synchronous standby, "+
	"which may not have it", ErrUnknownOutcome)

// commit commits, and returns when ctx is done although the commit goes on. A commit that waits for
// a synchronous standby must not be cancelled: the server would then report a success for
// a transaction that is lost if the standby takes over.
func commit(ctx context.Context, tx *sqlx.Tx) error {
	if ctx.Err() != nil {
		return fmt.Errorf("commit: %w", ctx.Err()) // nothing was sent, and the caller rolls back
	}
	committed := make(chan error, 1)
	// This ends with the answer or with the connection (maxSilence). Until then the connection is
	// not returned to the pool, whose bound is therefore that of the commits that wait.
	go func() { committed <- tx.Commit() }()
	select {
	case err := <-committed:
		return commitError(ctx, err)
	case <-ctx.Done():
		return fmt.Errorf("commit: %w: no answer yet (%v)", ErrUnknownOutcome, ctx.Err())
	}
}

// commitError distinguishes a commit that the server refused, which changed nothing, from one
// whose answer was lost. It decides by the SQLSTATE, since a server translates the severity.
func commitError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrTxDone) { // the transaction has ended already
		if ctx.Err() != nil {
			return fmt.Errorf("commit: %w", ctx.Err()) // package sql has rolled it back
		}
		return fmt.Errorf("commit: %w: %w", errNotOwner, err)
	}
	pgErr := serverError(err)
	refused := pgErr != nil && !endsSession(string(pgErr.Code))
	if refused || ctx.Err() != nil && errors.Is(err, ctx.Err()) ||
		errors.Is(err, pq.ErrInFailedTransaction) {
		return fmt.Errorf("commit: %w", err)
	}
	if errors.Is(err, ErrUnknownOutcome) {
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

// untilCommit is the context of a transaction for the driver, which cancels what the server does
// when it is done. It is done with its parent, unless the commit begins before.
type untilCommit struct {
	context.Context
	done chan struct{}
}

func (u untilCommit) Done() <-chan struct{} { return u.done }

func (u untilCommit) Err() error {
	select {
	case <-u.done:
		return u.Context.Err()
	default:
		return nil
	}
}

func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	until := untilCommit{ctx, make(chan struct{})}
	release := context.AfterFunc(ctx, func() { close(until.done) })
	tx, err := c.session.BeginTx(until, o)
	if err != nil {
		release()
		return nil, c.checkError(err)
	}
	c.inTx, c.byIndexBefore = true, c.byIndex
	c.mayEnd, _ = ctx.Value(mayEndKey{}).(*atomic.Bool)
	return transaction{tx, c, release}, nil
}

// transaction is a transaction of conn.
type transaction struct {
	driver.Tx
	conn    *conn
	release func() (released bool) // from its context
}

func (t transaction) Commit() error {
	if t.conn.mustNotEnd() {
		_ = t.Rollback()
		return errNotOwner
	}
	t.release()
	t.conn.inTx = false
	err := t.Tx.Commit()
	if err != nil {
		t.conn.byIndex = t.conn.byIndexBefore
	}
	return t.conn.checkError(err)
}

func (t transaction) Rollback() error {
	t.release()
	t.conn.inTx, t.conn.byIndex = false, t.conn.byIndexBefore
	return t.Tx.Rollback()
}

// checkNotice gets what the server reports besides the results of statements. With a notice of this
// routine, and then a success, it ends the wait for a standby: an operator has cancelled it.
func (c *conn) checkNotice(notice *pq.Error) {
	if notice.Routine == "SyncRepWaitForLSN" {
		c.unreplicated = true
	}
}
