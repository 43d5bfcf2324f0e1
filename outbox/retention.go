package outbox

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// DefaultKeep is how long published events stay in the outbox when Relay.Keep is not set.
const DefaultKeep = 14 * 24 * time.Hour

// The bounds of retention.
const (
	retainInterval = time.Minute
	retainBatch    = 1000
	// retainPause is the pause between two batches. It leaves the database to the writers and to the
	// publishing.
	retainPause    = 20 * time.Millisecond
	maxIdleBatches = 20 // batches without a deletion, after which a pass stops
)

// retainSQL reads the next rows in the order of seq and deletes those of them that are settled, not
// held, and older than $3 seconds. The database's clock dated the rows, and so it decides their
// age.
const retainSQL = `
WITH next AS MATERIALIZED (
	SELECT seq, txid, created_at FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2
), gone AS (
	DELETE FROM outbox AS o USING next AS n, outbox_cursor AS c
	WHERE o.seq = n.seq
		AND pg_visible_in_snapshot(n.txid, c.a) AND n.created_at < now() - $3 * interval '1 second'
		AND NOT EXISTS (SELECT FROM outbox_held AS h WHERE h.seq = n.seq)
	RETURNING 1
)
SELECT coalesce((SELECT max(seq) FROM next), 0) AS reached, (SELECT count(*) FROM next) AS read,
	(SELECT count(*) FROM gone) AS deleted`

// retain runs a pass of the retention once in retainInterval until ctx is done.
func (r *Relay) retain(ctx context.Context, lead *pg.Lead) {
	tick := time.NewTicker(retainInterval)
	defer tick.Stop()
	for {
		if err := r.deleteOld(ctx, lead); err != nil && ctx.Err() == nil {
			r.Log.Warn().Err(err).Msg("old events cannot be deleted, the relay tries again")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// deleteOld deletes published events that are older than the longest Keep of all replicas, in
// batches. Rows with low seqs are usually the oldest, so each pass begins with them and stops at
// the first batch without a deletion. Rows that stay, because they are held or have a wrong date,
// may hide old rows behind them. Therefore each pass also reads a bounded part of the remaining
// rows, from the seq that the pass before has reached.
func (r *Relay) deleteOld(ctx context.Context, lead *pg.Lead) error {
	keep, err := r.effectiveKeep(ctx, lead)
	if err != nil || math.IsInf(keep, 1) {
		return err
	}
	oldest, end, err := r.deleteOldFrom(ctx, lead, keep, 0, 1)
	if err != nil || end {
		return err
	}
	reached, end, err := r.deleteOldFrom(ctx, lead, keep, max(oldest, r.retainedTo), maxIdleBatches)
	r.retainedTo = reached
	if end {
		r.retainedTo = 0
	}
	return err
}

// deleteOldFrom reads the rows after a seq until that many batches were without a deletion. It
// returns the seq that it has reached, and whether that is the end of the outbox.
func (r *Relay) deleteOldFrom(ctx context.Context, lead *pg.Lead, keep float64, after int64,
	idle int) (reached int64, end bool, err error) {
	for reached = after; ; {
		var batch struct{ Reached, Read, Deleted int64 }
		err := lead.Tx(ctx, func(tx pg.Fenced) error {
			return tx.Tx().GetContext(ctx, &batch, retainSQL, reached, retainBatch, keep)
		})
		if err != nil {
			return reached, false, fmt.Errorf("delete old events: %w", err)
		}
		r.deleted.Add(batch.Deleted)
		if batch.Read < retainBatch {
			return reached, true, nil
		}
		reached = batch.Reached
		if batch.Deleted == 0 {
			idle--
		}
		if idle == 0 {
			return reached, false, nil
		}
		timer := time.NewTimer(retainPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return reached, false, ctx.Err()
		case <-timer.C:
		}
	}
}
