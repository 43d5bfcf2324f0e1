package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/postgres"
)

// DefaultKeep is how long history is kept when Relay.Keep is not set.
const DefaultKeep = 14 * 24 * time.Hour

// The bounds of retention.
const (
	retainInterval = time.Minute
	retainBatch    = 1000
	retainPause    = 20 * time.Millisecond // between two batches, so that writers and the relay go first
)

// retainSQL deletes, of the next rows in the order of seq, those that may go: which the relay has
// settled, which are not held, and which are old by the clock that dated them.
const retainSQL = `
WITH next AS MATERIALIZED (
	SELECT seq, txid, created_at FROM outbox AS o
	WHERE seq > $1 AND NOT EXISTS (SELECT FROM outbox_held AS h WHERE h.seq = o.seq) ORDER BY seq LIMIT $2
), gone AS (
	DELETE FROM outbox AS o USING next AS n, outbox_cursor AS c
	WHERE o.seq = n.seq
		AND pg_visible_in_snapshot(n.txid, c.a) AND n.created_at < now() - $3 * interval '1 second'
	RETURNING 1
)
SELECT coalesce((SELECT max(seq) FROM next), 0) AS reached, (SELECT count(*) FROM gone) AS deleted`

// retain deletes history from time to time until ctx is done, beside the relaying.
func (r *Relay) retain(ctx context.Context, lead *postgres.Lead) {
	tick := time.NewTicker(retainInterval)
	defer tick.Stop()
	for {
		if err := r.forget(ctx, lead); err != nil && ctx.Err() == nil {
			r.Log.Warn().Err(err).Msg("old events are not deleted, trying again")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// forget deletes what is older than Keep, in batches, and stops at the first batch in which nothing
// is. Rows are about as old as their numbers say, so what it leaves behind waits for the next pass.
func (r *Relay) forget(ctx context.Context, lead *postgres.Lead) error {
	keep := r.Keep
	if keep == 0 {
		keep = DefaultKeep
	}
	if keep < 0 {
		return nil
	}
	for reached := int64(0); ; {
		var batch struct{ Reached, Deleted int64 }
		err := lead.Tx(ctx, func(tx postgres.Fenced) error {
			return tx.Tx().GetContext(ctx, &batch, retainSQL, reached, retainBatch, keep.Seconds())
		})
		if err != nil {
			return fmt.Errorf("delete old events: %w", err)
		}
		if batch.Deleted == 0 {
			return nil
		}
		r.forgotten.Add(batch.Deleted)
		reached = batch.Reached
		timer := time.NewTimer(retainPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
