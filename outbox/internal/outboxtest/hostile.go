package outboxtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// CreateVersionTable creates the table whose rows HostileWrite locks.
func (s *Env) CreateVersionTable() {
	s.t.Helper()
	s.Exec(`CREATE TABLE version (id text PRIMARY KEY, n int NOT NULL)`)
	s.Exec(`INSERT INTO version SELECT 'aggregate-' || g, 0 FROM generate_series(0, 5) g`)
}

// HostileWrite is the transaction of a writer that makes sequence numbers, transaction ids and
// commits disagree in their order: with early transaction ids, savepoints, pauses and rollbacks. It
// appends the next two notes of one of six aggregates, or rolls back. It needs the table of
// CreateVersionTable.
func (s *Env) HostileWrite(ctx context.Context, random *rand.Rand) error {
	pause := func() {
		timer := time.NewTimer(time.Duration(random.IntN(3)) * time.Millisecond)
		<-timer.C
	}
	rolledBack := errors.New("rolled back")
	err := pg.InTx(ctx, s.DB, func(tx *sqlx.Tx) error {
		if random.IntN(2) == 0 {
			if _, err := tx.ExecContext(ctx, `SELECT pg_current_xact_id()`); err != nil {
				return err
			}
			pause()
		}
		if random.IntN(3) == 0 { // this savepoint is rolled back
			stray := Event(Note{On: "stray", N: 1})
			if _, err := tx.ExecContext(ctx, `SAVEPOINT s`); err != nil {
				return err
			}
			if err := s.Out.Append(ctx, tx, stray); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `ROLLBACK TO s`); err != nil {
				return err
			}
		}
		on, version := Aggregate(random.IntN(6)), 0
		if err := tx.GetContext(ctx, &version, `UPDATE version SET n = n + 1 WHERE id = $1 RETURNING n`,
			on); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `SAVEPOINT kept`); err != nil {
			return err
		}
		if err := s.Out.Append(ctx, tx, Event(Note{On: on, N: 2 * version}),
			Event(Note{On: on, N: 2*version + 1})); err != nil {
			return err
		}
		pause()
		if random.IntN(4) == 0 {
			return rolledBack
		}
		return nil
	})
	if errors.Is(err, rolledBack) {
		return nil
	}
	return err
}
