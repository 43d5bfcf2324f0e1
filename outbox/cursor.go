package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/postgres"
)

// leader is who relays the outbox of a database.
func leader(db *sqlx.DB) postgres.Leader { return postgres.Leader{DB: db, Name: "outbox"} }

// cursor is where the relay is; see the table outbox_cursor.
type cursor struct {
	Epoch   int64             `db:"epoch"`
	System  string            `db:"system"`
	A       postgres.Snapshot `db:"a"`
	B       postgres.Snapshot `db:"b"`
	LastSeq int64             `db:"last_seq"`

	Streamed bool `db:"streamed"` // a stream relays, from its own place; a is behind it

	fitted bool // it did not fit the database when it was taken
}

// These are about the row k of outbox_cursor, the snapshot s and the row c of pg_control_system.
const (
	// ownSQL: the cursor was written here, not copied here by a restore.
	ownSQL = `k.xmin::text::numeric = k.txid::text::numeric % 4294967296`
	// fitSQL: its transaction ids, and with them those of the rows, are of this cluster's history.
	fitSQL = `k.system = c.system_identifier::text
		AND pg_snapshot_xmax(k.a) <= pg_snapshot_xmax(s) AND pg_snapshot_xmax(k.b) <= pg_snapshot_xmax(s)`
)

// takeCursor marks the stored cursor as the lead's, so that nothing a former leader still writes
// counts, and returns it. A cursor that does not fit the database (it was restored, or moved to
// another cluster) is replaced first.
func takeCursor(ctx context.Context, lead *postgres.Lead) (c cursor, err error) {
	err = lead.Tx(ctx, func(tx postgres.Fenced) error {
		c, err = takeCursorIn(ctx, tx.Tx(), lead.Token)
		return err
	})
	return c, wrap("take cursor", err)
}

func takeCursorIn(ctx context.Context, tx *sqlx.Tx, token int64) (cursor, error) {
	// The snapshot comes after all that other relays have written, and before this transaction has an
	// id (which this lock does not give it), so that what it writes lies beyond the snapshot.
	if _, err := tx.ExecContext(ctx,
		`LOCK TABLE outbox_cursor IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return cursor{}, err
	}
	now, err := postgres.Now(ctx, tx)
	if err != nil {
		return cursor{}, err
	}
	var found struct {
		cursor
		Here string `db:"here"` // the cluster that this is
		Own  bool   `db:"own"`
		Xmin string `db:"xmin"` // of the cursor: who wrote it here
		Xmax string `db:"xmax"` // of now
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

// heldRow is a row that is put aside, or tried again in vain.
type heldRow struct {
	seq       int64
	number    int64 // see row
	aggregate string
	kind      string // as in outbox_held
	reason    string
	attempts  int
	retryIn   time.Duration // from now; when negative it is not tried again by itself
}

// save replaces the cursor and writes the holds that belong to it, in one transaction. When another
// leads by now it writes nothing and returns postgres.ErrSuperseded. Place is where its row was
// written last, as the save before has returned it, or empty.
func (c cursor) save(ctx context.Context, lead *postgres.Lead, place string,
	holds []heldRow) (newPlace string, err error) {
	if len(holds) == 0 {
		return c.update(ctx, lead.Conn(), place)
	}
	err = lead.Tx(ctx, func(tx postgres.Fenced) error {
		if newPlace, err = c.update(ctx, tx.Tx(), place); err != nil {
			return err
		}
		return writeHolds(ctx, tx, holds)
	})
	return newPlace, wrap("save cursor", err)
}

// writeHolds writes holds.
func writeHolds(ctx context.Context, tx postgres.Fenced, holds []heldRow) error {
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

// update is one statement, since it is the relay's every few milliseconds: the token is in it. It
// goes to the place of the row at once: while somebody holds an old snapshot, thousands of its old
// versions are in the table and in the index.
func (c cursor) update(ctx context.Context, q sqlx.QueryerContext, place string) (newPlace string,
	err error) {
	args := []any{string(c.A), string(c.B), c.LastSeq, c.Epoch, c.Streamed, c.System}
	var places []string
	if place != "" {
		if err := sqlx.SelectContext(ctx, q, &places, updateSQL+
			` AND ctid = $7::tid RETURNING ctid::text`, append(args, place)...); err != nil {
			return "", fmt.Errorf("save cursor: %w", err)
		}
	}
	if len(places) == 0 { // somebody else has written it since, such as Outbox.Use
		if err := sqlx.SelectContext(ctx, q, &places, updateSQL+` RETURNING ctid::text`,
			args...); err != nil {
			return "", fmt.Errorf("save cursor: %w", err)
		}
	}
	if len(places) != 1 {
		return "", fmt.Errorf("save cursor: %w", postgres.ErrSuperseded)
	}
	return places[0], nil
}
