package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// cursorWriter describes how a cursor that does not fit came into this database.
type cursorWriter struct {
	own  bool   // the relay wrote it here; false: a restore copied it
	xmin string // the id of the transaction that wrote its row, modulo 2^32
	xmax string // the first transaction id that is not assigned yet, in full
}

// rebase gives the rows of the outbox transaction ids that fit a new cursor, whose snapshots are
// now. It is the one exception to the rule that rows of the outbox are never updated. Their ids are
// those of another cluster's history and mean nothing here: rows that the old cursor had passed get
// the ancient id 3, unless they are visible in now as they are; all other rows get the id of this
// transaction, which is not visible in now, and so the relay publishes them.
//
// In a restored database, rows that were written after the restore were never passed, even where
// the ids of the old cursor say so; copiedSQL tells them from copied rows. When the cursor itself
// was not copied (own), the whole cluster was moved, as pg_upgrade does, and the old cursor is
// right about all rows.
func rebase(ctx context.Context, tx *sqlx.Tx, old cursor, now pg.Snapshot,
	w cursorWriter) error {
	// The statements below read the whole history once.
	if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `LOCK TABLE outbox IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	const passed = `($1 OR ` + copiedSQL + `) AND (pg_visible_in_snapshot(txid, $2::pg_snapshot)
		OR pg_visible_in_snapshot(txid, $3::pg_snapshot) AND seq <= $4)`
	// In pieces, so that the server answers from time to time: package postgres closes a connection on
	// which nothing arrives for long.
	return outboxLog.Pieces(ctx, tx, func(from, to int64) error {
		_, err := tx.ExecContext(ctx, `UPDATE outbox SET txid = CASE WHEN `+passed+
			` THEN '3'::xid8 ELSE pg_current_xact_id() END
			WHERE NOT (`+passed+
			` AND pg_visible_in_snapshot(txid, $5::pg_snapshot)) AND seq >= $6 AND seq < $7`,
			w.own, string(old.A), string(old.B), old.LastSeq, string(now), from, to, w.xmin, w.xmax)
		return err
	})
}

// copiedSQL holds for rows that a restore copied, as opposed to rows that were written here. A row
// that was written here has as xmin the id of its transaction, or the greater id of a
// subtransaction (a savepoint), and its transaction is younger than the one that copied the cursor.
// A copied row has as xmin the id of the transaction that copied it. A copied row may by chance
// look as if it was written here; then it is published a second time, which is harmless.
const copiedSQL = `(txid::text::numeric <> ` + xminSQL + ` AND NOT (txid::text::numeric < ` +
	xminSQL + `
	AND txid::text::numeric > $9::numeric - mod($9::numeric - $8::numeric, 4294967296)))`

// xminSQL is a row's xmin as a full transaction id. PostgreSQL stores the id modulo 2^32; the full
// id is the greatest assigned id with that remainder.
const xminSQL = `($9::numeric - mod($9::numeric - xmin::text::numeric, 4294967296))`

// The bounds of Fit while another replica leads.
const (
	fitInterval = 50 * time.Millisecond
	fitPatience = 10 * time.Second
)

// Fit rebases the cursor of a restored or moved database onto the transaction ids of its cluster;
// a cursor that fits is left as it is. A service calls it before it writes anything: otherwise the
// relay may take the first events after a restore for events that are published already, and skip
// them. Fit reads the whole history once, which may take minutes.
//
// While another replica leads, which rebases the cursor itself, Fit waits for up to ten seconds;
// the error then wraps pg.ErrSuperseded.
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
	return fmt.Errorf("fit cursor: %w, and has not rebased the cursor within %s; call Fit again",
		pg.ErrSuperseded, fitPatience)
}

// tryFit returns false while the cursor does not fit and another replica leads.
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
