package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// leader is the lock that the relays of one outbox compete for.
func leader(db *sqlx.DB) pg.Leader { return pg.Leader{DB: db, Name: "outbox"} }

// cursor is a row of outbox_cursor, which says how far the relay has come. Every row that is
// visible in snapshot A is settled; of the rows that are visible in B but not in A (the open
// window) those up to LastSeq are. No window is open when A equals B.
type cursor struct {
	Epoch   int64       `db:"epoch"`  // the token of the leader
	System  string      `db:"system"` // the identifier of the cluster
	A       pg.Snapshot `db:"a"`
	B       pg.Snapshot `db:"b"`
	LastSeq int64       `db:"last_seq"`

	// Streamed says that a stream delivers the rows. Its own checkpoint then says how far it has come,
	// and A is a snapshot behind that checkpoint, from which a window can go on.
	Streamed bool `db:"streamed"`

	fitted bool // takeCursor had to rebase it
}

// These conditions refer to the row k of outbox_cursor, the snapshot s, and the row c of
// pg_control_system.
const (
	// ownSQL holds when the cursor was written in this database. A restore copies the column txid but
	// gives the row the xmin of the transaction that copies it.
	ownSQL = `k.xmin::text::numeric = k.txid::text::numeric % 4294967296`
	// fitSQL holds when the transaction ids of the cursor, and so those of the rows, are of this
	// cluster's history.
	fitSQL = `k.system = c.system_identifier::text
		AND pg_snapshot_xmax(k.a) <= pg_snapshot_xmax(s) AND pg_snapshot_xmax(k.b) <= pg_snapshot_xmax(s)`
)

// takeCursor writes the lead's token into the stored cursor and returns it: from then on every
// write of a former leader fails. When the cursor does not fit the database, because it was
// restored or moved to another cluster, takeCursor rebases the outbox first.
func takeCursor(ctx context.Context, lead *pg.Lead) (c cursor, err error) {
	err = lead.Tx(ctx, func(tx pg.Fenced) error {
		c, err = takeCursorIn(ctx, tx.Tx(), lead.Token)
		return err
	})
	return c, wrap("take cursor", err)
}

func takeCursorIn(ctx context.Context, tx *sqlx.Tx, token int64) (cursor, error) {
	// The lock waits for the writes of other relays, so that the snapshot includes them. It gives this
	// transaction no id yet. The id is assigned after the snapshot, and so the rows that rebase marks
	// with it lie beyond the new cursor.
	if _, err := tx.ExecContext(ctx,
		`LOCK TABLE outbox_cursor IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return cursor{}, err
	}
	now, err := pg.Now(ctx, tx)
	if err != nil {
		return cursor{}, err
	}
	var found struct {
		cursor
		Here string `db:"here"` // the identifier of this cluster
		Own  bool   `db:"own"`
		Xmin string `db:"xmin"` // of the cursor's row
		Xmax string `db:"xmax"` // of the snapshot now
		Fits bool   `db:"fits"`
	}
	err = tx.GetContext(ctx, &found, `SELECT k.epoch, k.system, k.a::text, k.b::text, k.last_seq,
		k.streamed,
			c.system_identifier::text AS here, `+ownSQL+
		` AS own, k.xmin::text AS xmin, pg_snapshot_xmax(s)::text AS xmax, `+fitSQL+` AS fits
		FROM outbox_cursor AS k, CAST($1 AS pg_snapshot) AS s, pg_control_system() AS c`, string(now))
	if err != nil {
		return cursor{}, err
	}
	c := found.cursor
	if !found.Fits {
		if err := rebase(ctx, tx, c, now, cursorWriter{found.Own, found.Xmin, found.Xmax}); err != nil {
			return cursor{}, fmt.Errorf("rebase cursor: %w", err)
		}
		c.A, c.B, c.LastSeq, c.System, c.Streamed, c.fitted = now, now, 0, found.Here, false, true
	}
	c.Epoch = token
	_, err = tx.ExecContext(ctx, `UPDATE outbox_cursor SET epoch = $1, system = $2,
		a = $3::pg_snapshot, b = $4::pg_snapshot,
		last_seq = $5, streamed = $6, txid = pg_current_xact_id()`, c.Epoch, c.System, string(c.A),
		string(c.B), c.LastSeq, c.Streamed)
	return c, err
}

// heldRow is a row of outbox_held.
type heldRow struct {
	seq       int64
	number    int64 // see row.number
	aggregate string
	kind      string // as in outbox_held
	reason    string
	attempts  int
	retryIn   time.Duration // from now until the next attempt, or noRetry
}

// save writes the cursor, and the rows to hold that it passes, in one transaction. When another
// relay leads by now, it writes nothing and returns pg.ErrSuperseded. The ctid is what the
// last save has returned, or empty; see update.
func (c cursor) save(ctx context.Context, lead *pg.Lead, ctid string,
	holds []heldRow) (newCtid string, err error) {
	if len(holds) == 0 {
		return c.update(ctx, lead.Conn(), ctid)
	}
	err = lead.Tx(ctx, func(tx pg.Fenced) error {
		if newCtid, err = c.update(ctx, tx.Tx(), ctid); err != nil {
			return err
		}
		return writeHolds(ctx, tx, holds)
	})
	return newCtid, wrap("save cursor", err)
}

// writeHolds inserts rows into outbox_held, or replaces the schedule of those that are there.
func writeHolds(ctx context.Context, tx pg.Fenced, holds []heldRow) error {
	var seqs, attempts pq.Int64Array
	var aggregates, kinds, reasons pq.StringArray
	var due pq.Float64Array
	for _, h := range holds {
		seqs, attempts = append(seqs, h.seq), append(attempts, int64(h.attempts))
		aggregates, kinds, reasons = append(aggregates, h.aggregate), append(kinds, h.kind),
			append(reasons, h.reason)
		due = append(due, h.retryIn.Seconds())
	}
	_, err := tx.Tx().ExecContext(ctx, `
		INSERT INTO outbox_held (seq, aggregate, reason, attempts, due, kind)
		SELECT s, a, r, n, CASE WHEN d < 0 THEN 'infinity' ELSE now() + d * interval '1 second' END, k
		FROM unnest($1::bigint[], $2::text[], $3::text[], $4::int[], $5::float8[], $6::text[]) AS h (s, a,
			r, n, d, k)
		ON CONFLICT (seq) DO UPDATE SET reason = EXCLUDED.reason, attempts = EXCLUDED.attempts,
			due = EXCLUDED.due, kind = EXCLUDED.kind`,
		seqs, aggregates, reasons, attempts, due, kinds)
	return wrap("hold rows", err)
}

const updateSQL = `
UPDATE outbox_cursor SET a = $1::pg_snapshot, b = $2::pg_snapshot, last_seq = $3, streamed = $5,
	txid = pg_current_xact_id()
WHERE epoch = $4 AND system = $6`

// update writes the cursor if its token is still the stored one. It is a single statement, because
// the relay runs it every few milliseconds.
//
// It finds the row by its ctid, the physical address that the last update has returned. While some
// session holds an old snapshot, VACUUM cannot remove the old versions of the row, and a search
// through the index would pass thousands of them.
func (c cursor) update(ctx context.Context, q sqlx.QueryerContext, ctid string) (newCtid string,
	err error) {
	args := []any{string(c.A), string(c.B), c.LastSeq, c.Epoch, c.Streamed, c.System}
	var ctids []string
	if ctid != "" {
		if err := sqlx.SelectContext(ctx, q, &ctids, updateSQL+
			` AND ctid = $7::tid RETURNING ctid::text`, append(args, ctid)...); err != nil {
			return "", fmt.Errorf("save cursor: %w", err)
		}
	}
	if len(ctids) == 0 { // another session has moved the row, such as Outbox.UseSource
		if err := sqlx.SelectContext(ctx, q, &ctids, updateSQL+` RETURNING ctid::text`,
			args...); err != nil {
			return "", fmt.Errorf("save cursor: %w", err)
		}
	}
	if len(ctids) != 1 {
		return "", fmt.Errorf("save cursor: %w", pg.ErrSuperseded)
	}
	return ctids[0], nil
}
