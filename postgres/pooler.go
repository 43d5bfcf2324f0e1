package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// ErrPooled says that a pooler gives a session to several clients by turns. Prepared statements,
// time-outs and locks would be those of somebody else.
var ErrPooled = errors.New("the database is behind a pooler that shares its sessions " +
	"(transaction or statement mode)")

const poolerRemedy = "put the pooler into session mode (pool_mode = session) for this database, " +
	"or connect without it"

// The bounds of CheckSessions. A pooler gives the session that it has used last to the next who
// asks; while others ask as well, it may take some looks.
const (
	poolerWait  = 10 * time.Second
	poolerLooks = 3
)

// CheckSessions refuses a pooler that gives one session to several clients, with ErrPooled. It
// holds two connections and looks whether they are given the same session by turns.
func CheckSessions(ctx context.Context, db *sqlx.DB) error {
	ctx, cancel := context.WithTimeout(ctx, poolerWait)
	defer cancel()
	var pids [2]int
	var err error
	var conns [2]*sqlx.Conn
	for i := range conns {
		if conns[i], err = db.Connx(ctx); err != nil {
			return fmt.Errorf("connection %d to the database, of %d that each replica may need: %w", i+1,
				maxConnections, err)
		}
		defer func() { _ = conns[i].Close() }()
	}
	for range poolerLooks {
		for i, c := range conns {
			if err := c.GetContext(ctx, &pids[i], `SELECT pg_backend_pid()`); err != nil {
				return fmt.Errorf("look whether a pooler shares sessions: %w", err)
			}
		}
		if pids[0] == pids[1] {
			return fmt.Errorf("%w: %s", ErrPooled, poolerRemedy)
		}
	}
	return nil
}
