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

// HeldEvent is an event that the broker did not accept.
type HeldEvent struct {
	Seq       int64  `db:"seq"`
	Aggregate string `db:"aggregate"`
	ID        string `db:"id"`   // empty: its row is not in the outbox
	Type      string `db:"type"` // the same
	// Kind is refused, unroutable, quarantined or unseen.
	Kind     string     `db:"kind"`
	Reason   string     `db:"reason"`
	Attempts int        `db:"attempts"`
	Due      *time.Time `db:"due"`    // of the next attempt; nil: a person must repair the cause first
	Behind   int64      `db:"behind"` // later events of the same aggregate that wait for it
}

// heldSQL reads held rows with a cause of their own. The rows behind them are counted only:
// thousands may wait for one.
const heldSQL = `
SELECT h.seq, h.aggregate, coalesce(o.id::text, '') AS id, coalesce(o.type, '') AS type, h.kind,
	h.reason, h.attempts, CASE WHEN h.due < 'infinity' THEN h.due END AS due,
	(SELECT count(*) FROM outbox_held AS b WHERE b.aggregate = h.aggregate AND b.seq > h.seq
		AND b.kind = 'behind') AS behind
FROM outbox_held AS h LEFT JOIN outbox AS o USING (seq)
WHERE h.seq > $1 AND h.kind <> 'behind' ORDER BY h.seq LIMIT $2`

// Held returns the held events after a seq, at most limit of them, in the order of their seqs.
// Events that only wait for an earlier one of their aggregate are not in the list.
func (o *Outbox) Held(ctx context.Context, after int64, limit int) ([]HeldEvent, error) {
	list := []HeldEvent{}
	err := o.db.SelectContext(ctx, &list, heldSQL, after, limit)
	return list, wrap("list held events", err)
}
