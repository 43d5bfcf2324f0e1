package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// ErrPooled says that a pooler gives a session to several clients by turns. Prepared statements, time-outs
// and locks would be those of somebody else.
var ErrPooled = errors.New("the database is behind a pooler that shares its sessions (transaction or statement mode)")

const poolerMend = "put the pooler into session mode (pool_mode = session) for this database, or connect without it"

// poolerWait is how long CheckSessions waits for a second connection.
const poolerWait = 3 * time.Second

// CheckSessions refuses a pooler that gives one session to several clients, with ErrPooled. It holds a
// connection that is idle and looks whether others are given its session.
func CheckSessions(ctx context.Context, db *sqlx.DB) error {
	first, err := db.Connx(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = first.Close() }()
	var mine, same int
	if err := first.GetContext(ctx, &mine, `SELECT pg_backend_pid()`); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, poolerWait)
	defer cancel()
	// A pooler that has given the session to nobody else so far gives it to the next who asks.
	err = InTx(waiting, db, func(tx *sqlx.Tx) error {
		if err := tx.GetContext(waiting, &same, `SELECT pg_backend_pid()`); err != nil {
			return err
		}
		var now int
		if err := first.GetContext(waiting, &now, `SELECT pg_backend_pid()`); err == nil && now != mine {
			same = mine
		}
		return nil
	})
	if answer := answerOf(err); same == mine || answer != nil && strings.Contains(answer.Message, "pooling mode") {
		return fmt.Errorf("%w: %s", ErrPooled, poolerMend)
	}
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return fmt.Errorf("no second connection to the database within %s: a pooler must have at least %d for each replica: %w",
			poolerWait, maxConnections, err)
	}
	return err
}
