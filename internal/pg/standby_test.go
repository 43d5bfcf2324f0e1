package pg_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// A commit that no standby has received is not acknowledged when the caller gives up: the server
// would report a success for a cancelled one. It is not visible either, until a standby has it.
func TestCommitWaitsForTheStandby(t *testing.T) {
	t.Parallel()
	db := pool(t, servertest.PrivatePostgres(t).PostgresURL)
	exec(t, db, `CREATE TABLE x (n int)`)
	standbys := func(names string) {
		exec(t, db, `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`)
		exec(t, db, `SELECT pg_reload_conf()`)
		waitFor(t, "the setting", func() bool {
			return count(t, db, `SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names'
				AND setting = '`+names+`'`) == 1
		})
	}
	standbys("nobody")
	insert := func(ctx context.Context) error {
		return pg.InTx(ctx, db, func(tx *sqlx.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO x VALUES (1)`)
			return err
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := insert(ctx); !errors.Is(err, pg.ErrUnknownOutcome) || pg.ClassOf(err) != pg.Lost {
		t.Errorf("a commit that no standby has: %v (class %d)", err, pg.ClassOf(err))
	}
	if n := count(t, db, `SELECT count(*) FROM x`); n != 0 {
		t.Error("a commit that no standby has is visible")
	}
	standbys("")
	waitFor(t, "the commit goes on", func() bool { return count(t, db, `SELECT sum(n) FROM x`) == 1 })

	// An operator may cancel the wait, and the server then reports a success.
	standbys("nobody")
	for name, write := range map[string]func() error{
		"a transaction": func() error { return insert(t.Context()) },
		"a statement":   func() error { _, err := db.Exec(`INSERT INTO x VALUES (2)`); return err },
		"a prepared statement": func() error {
			_, err := db.Exec(`INSERT INTO x VALUES ($1)`, 3)
			return err
		},
		"a row": func() error {
			var n int
			return db.Get(&n, `INSERT INTO x VALUES (4) RETURNING n`)
		},
		"rows": func() error {
			var n []int
			return db.Select(&n, `INSERT INTO x VALUES ($1), (6) RETURNING n`, 5)
		},
	} {
		done := make(chan error, 1)
		go func() { done <- write() }()
		waitFor(t, name+" waits", func() bool {
			return count(t, db, `SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
				WHERE wait_event = 'SyncRep'`) > 0
		})
		if err := <-done; !errors.Is(err, pg.ErrUnknownOutcome) {
			t.Errorf("%s whose wait was cancelled: %v", name, err)
		}
	}
}
