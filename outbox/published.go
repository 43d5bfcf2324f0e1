package outbox

import (
	"context"
	"time"
)

// Published is an event of the history, without its data.
type Published struct {
	Seq       int64     `db:"seq"`
	ID        string    `db:"id"`
	Type      string    `db:"type"`
	Aggregate string    `db:"aggregate"`
	At        time.Time `db:"at"`      // it was appended
	Content   int64     `db:"content"` // the first eight bytes of the SHA-256 of its data
	Waiting   bool      `db:"waiting"` // it is not published yet, or it is held
}

// publishedSQL reads the history in the order of seq. The fingerprint is that of the bytes which
// the relay publishes, so that it can be compared with what a consumer has received.
const publishedSQL = `
SELECT o.seq, o.id::text, o.type, o.aggregateid AS aggregate, o.created_at AS at,
	('x' || encode(substring(sha256(convert_to(o.payload::text, 'UTF8')) FOR 8),
		'hex'))::bit(64)::bigint AS content,
	EXISTS (SELECT FROM outbox_held AS h WHERE h.seq = o.seq)
		OR NOT (pg_visible_in_snapshot(o.txid, k.a) OR pg_visible_in_snapshot(o.txid, k.b)
			AND o.seq <= k.last_seq) AS waiting
FROM outbox AS o CROSS JOIN outbox_cursor AS k
WHERE o.seq > $1 ORDER BY o.seq LIMIT $2`

// Published returns at most limit events of the history with a seq greater than after, in the order
// of seq. An event that is committed late may have a seq that was passed before.
func (o *Outbox) Published(ctx context.Context, after int64, limit int) ([]Published, error) {
	list := []Published{}
	err := o.db.SelectContext(ctx, &list, publishedSQL, after, limit)
	return list, wrap("list the history", err)
}
