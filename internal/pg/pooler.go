package pg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// ErrPooled means that a pooler gives one session to several clients in turn. A client would then
// meet the prepared statements, time-outs and locks of another.
var ErrPooled = errors.New("the database is behind a pooler that shares its sessions " +
	"(transaction or statement mode)")

const poolerRemedy = "put the pooler into session mode (pool_mode = session) for this database, " +
	"or connect without it"

// The bounds of CheckSessions. A pooler gives the session that it used last to the next client.
// While other clients are active, one look may not be enough to see that.
const (
	poolerWait  = 10 * time.Second
	poolerLooks = 3
)

// CheckSessions returns ErrPooled if a pooler gives one session to several clients. It holds two
// connections and checks whether both get the same session in turn.
func CheckSessions(ctx context.Context, db *sqlx.DB) error {
	ctx, cancel := context.WithTimeout(ctx, poolerWait)
	defer cancel()
	var pids [2]int
	var err error
	var conns [2]*sqlx.Conn
	for i := range conns {
		if conns[i], err = db.Connx(ctx); err != nil {
			return fmt.Errorf("open connection %d to the database (each replica may need %d): %w", i+1,
				maxConnections, err)
		}
		defer func() { _ = conns[i].Close() }()
	}
	for range poolerLooks {
		for i, c := range conns {
			if err := c.GetContext(ctx, &pids[i], `SELECT pg_backend_pid()`); err != nil {
				return fmt.Errorf("check whether a pooler shares sessions: %w", err)
			}
		}
		if pids[0] == pids[1] {
			return fmt.Errorf("%w: %s", ErrPooled, poolerRemedy)
		}
	}
	return nil
}
