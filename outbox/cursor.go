package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// leader is the lock that the relays of one outbox compete for.
func leader(db *sqlx.DB) pg.Leader { return pg.Leader{DB: db, Name: "outbox"} }

// cursor is a row of outbox_cursor, which says how far the relay has come.
type cursor struct {
	Epoch  int64  `db:"epoch"`  // the token of the leader
	System string `db:"system"` // the identifier of the cluster
	position

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

const updateSQL = `
UPDATE outbox_cursor SET a = $1::pg_snapshot, b = $2::pg_snapshot, last_seq = $3, streamed = $5,
	txid = pg_current_xact_id()
WHERE epoch = $4 AND system = $6`

// update writes the cursor if its token is still the stored one; otherwise another relay leads by
// now, and it returns pg.ErrSuperseded. It is a single statement, because the relay runs it every
// few milliseconds. The ctid is what the last update has returned, or empty.
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

// errCursorReplaced ends a term; the next term begins with the stored cursor.
var errCursorReplaced = errors.New(
	"the row in outbox_cursor is not the one that this leader wrote: " +
		"was the database restored while the relay ran? " +
		"The relay starts again from the stored cursor")

// wantedSource reads which source an operator wants. It also compares the stored cursor with the
// one that this term has written: a restore under a running relay may bring back an old cursor
// under the same token, and no write would fail until the next event.
func (t *term) wantedSource(ctx context.Context) (wanted SourceName, err error) {
	var found struct {
		Source SourceName `db:"source"`
		Mine   bool       `db:"mine"`
	}
	c := t.stored
	err = t.conn.GetContext(ctx, &found, `SELECT source, epoch = $1 AND system = $2 AND a::text = $3
		AND b::text = $4 AND last_seq = $5 AS mine
		FROM outbox_cursor`, c.Epoch, c.System, string(c.A), string(c.B), c.LastSeq)
	if err != nil {
		return "", fmt.Errorf("read source: %w", err)
	}
	if !found.Mine {
		t.relay.anomalies.Add(1)
		return "", errCursorReplaced
	}
	return found.Source, nil
}
