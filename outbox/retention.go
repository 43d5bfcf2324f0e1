package outbox

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/quadrille-go/quadrille/postgres"
)

// DefaultKeep is how long history is kept when Relay.Keep is not set.
const DefaultKeep = 14 * 24 * time.Hour

// The bounds of retention.
const (
	retainInterval = time.Minute
	retainBatch    = 1000
	// between two batches, so that writers and the relay go first
	retainPause    = 20 * time.Millisecond
	maxIdleBatches = 20 // batches of a pass in which nothing goes
)

// retainSQL deletes, of the next rows in the order of seq, those that may go: which the relay has
// settled, which are not held, and which are old by the clock that dated them.
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

// retain deletes history from time to time until ctx is done, beside the relaying.
func (r *Relay) retain(ctx context.Context, lead *postgres.Lead) {
	tick := time.NewTicker(retainInterval)
	defer tick.Stop()
	for {
		if err := r.deleteOld(ctx, lead); err != nil && ctx.Err() == nil {
			r.Log.Warn().Err(err).Msg("old events are not deleted, trying again")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// deleteOld deletes what is older than the longest Keep of all relays, in batches. Rows are about as
// old as their numbers say, and so the oldest are looked at in each pass, up to the first batch in
// which nothing goes. Behind rows that stay, because they are held or dated wrongly, others may be
// old: a bounded part of the rest is looked at as well, from where the pass before has stopped.
func (r *Relay) deleteOld(ctx context.Context, lead *postgres.Lead) error {
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

// deleteOldFrom goes through the rows after a number, until nothing has gone in so many batches, and
// tells where it has stopped and whether that is the end.
func (r *Relay) deleteOldFrom(ctx context.Context, lead *postgres.Lead, keep float64, after int64,
	idle int) (reached int64, end bool, err error) {
	for reached = after; ; {
		var batch struct{ Reached, Read, Deleted int64 }
		err := lead.Tx(ctx, func(tx postgres.Fenced) error {
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
