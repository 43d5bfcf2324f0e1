package inbox

import (
	"context"
	"time"
)

// Forgetter deletes what is old. Replicas may do it at the same time.
type Forgetter struct{ inbox *Inbox }

// NewForgetter returns the one of an inbox.
func NewForgetter(i *Inbox) Forgetter { return Forgetter{i} }

// ReceiptMargin is how much longer a receipt stays than it is promised to: the clocks of a
// publisher and of the database may differ.
const ReceiptMargin = 24 * time.Hour

// forgetReceiptsSQL reads the next receipts of an owner in the order of their ids, which need no
// other index, and deletes those of them that are old. The receipt of an event that pends stays, so
// that the event is a duplicate when it is delivered again.
const forgetReceiptsSQL = `
WITH next AS MATERIALIZED (
	SELECT event_id, handled_at FROM inbox
	WHERE consumer = $1 AND owner = $2 AND ($3 = '' OR event_id > nullif($3, '')::uuid)
	ORDER BY event_id LIMIT $4
), gone AS (
	DELETE FROM inbox AS i USING next AS n
	WHERE i.consumer = $1 AND i.owner = $2 AND i.event_id = n.event_id
		AND n.handled_at < now() - $5 * interval '1 second'
		AND NOT EXISTS (SELECT FROM pending AS p WHERE p.consumer = $1 AND p.owner = $2
			AND p.key = n.event_id::text)
	RETURNING 1
)
SELECT coalesce((SELECT event_id::text FROM next ORDER BY event_id DESC LIMIT 1), '') AS reached,
	(SELECT count(*) FROM next) AS read, (SELECT count(*) FROM gone) AS deleted`

// Forgotten is the result of one batch of Receipts.
type Forgotten struct {
	Reached string // the last id that was read
	Read    int    // receipts
	Deleted int
}

// Receipts reads at most limit receipts of an owner with ids after one, and deletes those
// that are older than keep and ReceiptMargin, by the clock of the database.
func (f Forgetter) Receipts(ctx context.Context, owner, after string, keep time.Duration,
	limit int) (done Forgotten, err error) {
	err = f.inbox.db.GetContext(ctx, &done, forgetReceiptsSQL, f.inbox.consumer, owner, after, limit,
		(keep + ReceiptMargin).Seconds())
	return done, wrap("delete old receipts", err)
}

// Repairs deletes at most limit repairs that are older than keep, and returns their number.
func (f Forgetter) Repairs(ctx context.Context, keep time.Duration, limit int) (int64, error) {
	result, err := f.inbox.db.ExecContext(ctx, `DELETE FROM repairs WHERE id = ANY(ARRAY(
		SELECT id FROM repairs WHERE consumer = $1 AND at < now() - $2 * interval '1 second'
		ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED))`, f.inbox.consumer, keep.Seconds(), limit)
	if err != nil {
		return 0, wrap("delete old repairs", err)
	}
	return result.RowsAffected()
}

// Owners returns the services whose events were received.
func (f Forgetter) Owners(ctx context.Context) ([]string, error) {
	var owners []string
	// There are few, so the query searches the index once for each.
	err := f.inbox.db.SelectContext(ctx, &owners, `
		WITH RECURSIVE owners AS (
			(SELECT owner FROM inbox WHERE consumer = $1 ORDER BY owner LIMIT 1)
			UNION ALL
			SELECT (SELECT owner FROM inbox WHERE consumer = $1 AND owner > o.owner ORDER BY owner LIMIT 1)
				FROM owners AS o WHERE o.owner IS NOT NULL
		)
		SELECT owner FROM owners WHERE owner IS NOT NULL`, f.inbox.consumer)
	return owners, wrap("list the owners of receipts", err)
}

// Calls deletes at most limit answered calls that are older than keep, and returns their number.
func (f Forgetter) Calls(ctx context.Context, keep time.Duration, limit int) (int64, error) {
	result, err := f.inbox.db.ExecContext(ctx, `DELETE FROM calls WHERE ctid = ANY(ARRAY(
		SELECT ctid FROM calls WHERE answered_at < now() - $1 * interval '1 second'
		ORDER BY answered_at LIMIT $2 FOR UPDATE SKIP LOCKED))`, keep.Seconds(), limit)
	if err != nil {
		return 0, wrap("delete old calls", err)
	}
	return result.RowsAffected()
}
