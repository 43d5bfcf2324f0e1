package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
)

// cursorWriter is who has written the cursor that does not fit.
type cursorWriter struct {
	own  bool   // this database, not a copy of another
	xmin string // the transaction, as PostgreSQL counts them: modulo 2^32
	xmax string // the first transaction that has not begun yet, as a whole
}

// rebase is the one exception to "rows are never updated". The transaction ids in the rows are
// those of another history: rows that the old cursor had passed get an ancient id unless now shows
// them anyway, all others that of this transaction, which lies beyond now, the fresh cursor.
//
// In a copied database a row that was not copied but written since was never passed, also where the
// old cursor says so; see copiedSQL. Where the cursor was not copied either (own), the whole
// cluster was moved, as pg_upgrade does, and the old cursor is right about all rows.
func rebase(ctx context.Context, tx *sqlx.Tx, old cursor, now postgres.Snapshot, w cursorWriter) error {
	// It reads the whole history once.
	if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `LOCK TABLE outbox IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	const passed = `($1 OR ` + copiedSQL + `) AND (pg_visible_in_snapshot(txid, $2::pg_snapshot)
		OR pg_visible_in_snapshot(txid, $3::pg_snapshot) AND seq <= $4)`
	// Piece by piece, so that the server says something from time to time: a line without a word is
	// cut.
	return outboxLog.Pieces(ctx, tx, func(from, to int64) error {
		_, err := tx.ExecContext(ctx, `UPDATE outbox SET txid = CASE WHEN `+passed+
			` THEN '3'::xid8 ELSE pg_current_xact_id() END
			WHERE NOT (`+passed+
			` AND pg_visible_in_snapshot(txid, $5::pg_snapshot)) AND seq >= $6 AND seq < $7`,
			w.own, string(old.A), string(old.B), old.LastSeq, string(now), from, to, w.xmin, w.xmax)
		return err
	})
}

// copiedSQL tells rows that were copied from those that were written here. A row that was written
// here has its transaction's id as xmin, or that of a subtransaction (a savepoint), which is
// greater; and its transaction is younger than the one that has copied the cursor. A copy has the
// xmin of the transaction that copied it. Where a copy still looks as if it were written here it is
// published again, which is harmless.
const copiedSQL = `(txid::text::numeric <> ` + xminSQL + ` AND NOT (txid::text::numeric < ` +
	xminSQL + `
	AND txid::text::numeric > $9::numeric - mod($9::numeric - $8::numeric, 4294967296)))`

// xminSQL is the whole number of a row's xmin: the greatest that has begun and ends like it.
const xminSQL = `($9::numeric - mod($9::numeric - xmin::text::numeric, 4294967296))`

// The bounds of Fit while another replica leads.
const (
	fitInterval = 50 * time.Millisecond
	fitPatience = 10 * time.Second
)

// Fit makes the cursor fit its database. A service calls it before it writes anything: after a
// restore, its first own events must not be taken for old ones. It goes through the whole history
// once, which takes its time. While another replica leads, which makes the cursor fit first of all,
// it waits for up to ten seconds; the error then wraps postgres.ErrSuperseded.
func Fit(ctx context.Context, db *sqlx.DB) error {
	tick := time.NewTicker(fitInterval)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < fitPatience; {
		if done, err := tryFit(ctx, db); done || err != nil {
			return wrap("fit cursor", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("fit cursor: %w", ctx.Err())
		case <-tick.C:
		}
	}
	return fmt.Errorf("fit cursor: %w, and has not made it fit within %s", postgres.ErrSuperseded,
		fitPatience)
}

// tryFit returns false while another replica leads and the cursor does not fit.
func tryFit(ctx context.Context, db *sqlx.DB) (bool, error) {
	var fits bool
	err := db.GetContext(ctx, &fits, `SELECT `+fitSQL+` FROM outbox_cursor AS k,
		pg_current_snapshot() AS s, pg_control_system() AS c`)
	if fits || err != nil {
		return fits, wrap("check cursor", err)
	}
	lead, err := leader(db).Try(ctx)
	if lead == nil || err != nil {
		return false, err
	}
	defer lead.Release()
	ctx, stop := lead.Keep(ctx)
	defer stop()
	_, err = takeCursor(ctx, lead)
	return err == nil, err
}
