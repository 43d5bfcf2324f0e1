package outbox

import (
	"context"
	"time"
)

// Waiting is an event that was appended and is not published yet.
type Waiting struct {
	ID       string    `db:"id"`
	Type     string    `db:"type"`
	Since    time.Time `db:"since"`    // it was appended
	Held     bool      `db:"held"`     // the broker did not accept it, or it is behind such an event
	Attempts int       `db:"attempts"` // of a held one, that failed
	Reason   string    `db:"reason"`   // why it is held
	// Due is when a held event is published again. Nil: when an earlier event of its aggregate is, or
	// after a person has repaired the cause; see Reason.
	Due *time.Time `db:"due"`
}

// waitingSQL reads the rows of an aggregate that are held, or that the cursor has not passed.
const waitingSQL = `
SELECT o.id::text, o.type, o.created_at AS since, h.seq IS NOT NULL AS held,
	coalesce(h.attempts, 0) AS attempts, coalesce(h.reason, '') AS reason,
	CASE WHEN h.due < 'infinity' THEN h.due END AS due
FROM outbox AS o LEFT JOIN outbox_held AS h USING (seq) CROSS JOIN outbox_cursor AS k
WHERE o.aggregateid = $1 AND (h.seq IS NOT NULL OR NOT (pg_visible_in_snapshot(o.txid, k.a)
	OR pg_visible_in_snapshot(o.txid, k.b) AND o.seq <= k.last_seq))
ORDER BY o.seq LIMIT $2`

// Waiting returns the first 1000 events about an aggregate that are not published yet. While the
// relay streams, an event that was published a moment ago may still be among them.
func (o *Outbox) Waiting(ctx context.Context, aggregate string) ([]Waiting, error) {
	list := []Waiting{}
	err := o.db.SelectContext(ctx, &list, waitingSQL, aggregate, maxHistory)
	return list, wrap("read what waits in the outbox", err)
}
