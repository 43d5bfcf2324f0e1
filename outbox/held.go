package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// retryHeld publishes one batch of held rows that are due, unless the last one is still in the
// queue. As long as a batch releases rows, the next call does not wait for heldInterval: the rows
// behind the released ones are due at once.
func (t *term) retryHeld(ctx context.Context) error {
	if t.heldCount == 0 || t.waiting(ofHeld) || time.Since(t.heldCheckedAt) < heldInterval {
		return nil
	}
	t.heldCheckedAt = time.Now()
	due, outOfTurn, err := dueHeld(ctx, t.conn)
	if err != nil {
		return err
	}
	if len(outOfTurn) > 0 {
		if err := t.lead.Tx(ctx, func(tx pg.Fenced) error {
			return postpone(ctx, tx, outOfTurn)
		}); err != nil {
			return err
		}
	}
	if err := t.fill(ctx, due); err != nil {
		return err
	}
	t.failed = map[string]bool{}
	return t.send(ctx, due)
}

// fill reads the rows of attempts, of which only the seq is known. An attempt whose row cannot be
// published gets its result. So does one whose row is missing, although the retention does not
// delete held rows: a stream delivers rows whose commit still waits for a synchronous standby, and
// no query sees them until then.
func (t *term) fill(ctx context.Context, attempts []attempt) error {
	var seqs []int64
	for _, a := range attempts {
		if a.result == unknown {
			seqs = append(seqs, a.seq)
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	rows, err := t.relay.rows(ctx, seqs)
	if err != nil {
		return err
	}
	t.relay.limits.markUnfit(rows)
	found := map[int64]row{}
	for _, r := range rows {
		found[r.seq] = r
	}
	for i := range attempts {
		a := &attempts[i]
		if a.result != unknown {
			continue
		}
		r, ok := found[a.seq]
		switch {
		case !ok:
			a.result, a.reason = unseen, "its row is not in the outbox: it was deleted, or its commit "+
				"still waits for a synchronous standby"
		case r.fault != nil:
			a.row, a.result, a.reason = r, quarantined, r.fault.Error()
		default:
			a.row = r
		}
	}
	return nil
}

// dueSQL reads held rows that are due, through an index alone, so that its cost does not depend on
// how many rows are held. A row is early when an earlier row of its aggregate is due later. Rows of
// one aggregate that are due together are published together.
const dueSQL = `
SELECT seq, aggregate, attempts, EXISTS (
	SELECT FROM outbox_held AS b WHERE b.aggregate = h.aggregate AND b.seq < h.seq
		AND b.due > h.due) AS early
FROM outbox_held AS h WHERE due <= now() AND due < 'infinity' ORDER BY due, seq LIMIT $1`

// dueHeld reads the held rows that are due, in the order of seq. Rows that would overtake an
// earlier row of their aggregate are returned as outOfTurn.
func dueHeld(ctx context.Context, conn *sqlx.Conn) (due []attempt, outOfTurn []int64, err error) {
	var rows []struct {
		Seq       int64  `db:"seq"`
		Aggregate string `db:"aggregate"`
		Attempts  int    `db:"attempts"`
		Early     bool   `db:"early"`
	}
	if err := conn.SelectContext(ctx, &rows, dueSQL, maxHeldBatch); err != nil {
		return nil, nil, wrap("find held rows", err)
	}
	for _, r := range rows {
		if r.Early {
			outOfTurn = append(outOfTurn, r.Seq)
			continue
		}
		a := attempt{origin: ofHeld, tries: r.Attempts, row: row{seq: r.Seq}}
		a.record.Subject = r.Aggregate
		due = append(due, a)
	}
	slices.SortFunc(due, func(a, b attempt) int { return int(a.seq - b.seq) })
	return due, outOfTurn, nil
}

// heldAggregatesSQL finds those of the given aggregates that have a held row. It reads one row of
// each, because thousands of rows may be held behind the first.
const heldAggregatesSQL = `
SELECT a FROM unnest($1::text[]) AS a, LATERAL (SELECT FROM outbox_held
	WHERE aggregate = a LIMIT 1) AS h`

// findHeld returns which of the rows are held, and which of their aggregates have a held row. The
// relay reads the table for each batch instead of remembering all held aggregates, whose number
// has no bound.
func findHeld(ctx context.Context, conn *sqlx.Conn, rows []row) (held map[int64]bool,
	aggregates map[string]bool, err error) {
	seqs := make(pq.Int64Array, len(rows))
	var subjects pq.StringArray
	for i, r := range rows {
		seqs[i] = r.seq
		subjects = append(subjects, r.record.Subject)
	}
	slices.Sort(subjects)
	var found []string
	if err := conn.SelectContext(ctx, &found, heldAggregatesSQL,
		slices.Compact(subjects)); err != nil {
		return nil, nil, wrap("find held aggregates", err)
	}
	var heldSeqs []int64
	if err := conn.SelectContext(ctx, &heldSeqs, `SELECT seq FROM outbox_held WHERE seq = ANY($1)`,
		seqs); err != nil {
		return nil, nil, wrap("find rows that are held already", err)
	}
	held, aggregates = map[int64]bool{}, map[string]bool{}
	for _, aggregate := range found {
		aggregates[aggregate] = true
	}
	for _, seq := range heldSeqs {
		held[seq] = true
	}
	return held, aggregates, nil
}

// countHeld counts the held rows once in each term, which then counts along: the cost of a count
// over the table grows with the held rows.
func countHeld(ctx context.Context, conn *sqlx.Conn) (held, refused int, err error) {
	if err := conn.GetContext(ctx, &held, `SELECT count(*) FROM outbox_held`); err != nil {
		return 0, 0, wrap("count held rows", err)
	}
	refused, err = countRefused(ctx, conn)
	return held, refused, err
}

// countRefusedSQL counts up to MaxHeld and no further, which bounds its cost.
const countRefusedSQL = `
SELECT count(*) FROM (SELECT FROM outbox_held WHERE kind = 'refused'
	AND due < 'infinity' LIMIT $1) AS refused`

// countRefused counts from the table after each batch: a replay request may have made quarantined
// rows due, and released rows may have been of any kind.
func countRefused(ctx context.Context, conn *sqlx.Conn) (n int, err error) {
	err = conn.GetContext(ctx, &n, countRefusedSQL, MaxHeld)
	return n, wrap("count refused rows", err)
}

// writeHolds inserts rows into outbox_held, or replaces the schedule of those that are there.
func writeHolds(ctx context.Context, tx pg.Fenced, holds []heldRow) error {
	if len(holds) == 0 {
		return nil
	}
	var seqs, attempts pq.Int64Array
	var aggregates, kinds, reasons pq.StringArray
	var due pq.Float64Array
	for _, h := range holds {
		seqs, attempts = append(seqs, h.seq), append(attempts, int64(h.attempts))
		aggregates, kinds, reasons = append(aggregates, h.aggregate), append(kinds, string(h.kind)),
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

// postpone makes rows wait until the earlier rows of their aggregate are released.
func postpone(ctx context.Context, tx pg.Fenced, seqs []int64) error {
	_, err := tx.Tx().ExecContext(ctx, `UPDATE outbox_held SET due = 'infinity', kind = 'behind'
		WHERE seq = ANY($1)`, pq.Int64Array(seqs))
	return wrap("postpone held rows", err)
}

// nextDueSQL makes the first held rows of an aggregate due, up to the first that has a cause of its
// own: that one has its own schedule, and the rows after it wait for it. It reads at most $2 rows
// of each aggregate; their release makes the next ones due.
const nextDueSQL = `
UPDATE outbox_held AS h SET due = now() FROM unnest($1::text[]) AS a, LATERAL (
	SELECT seq, bool_and(kind = 'behind') OVER (ORDER BY seq) AS free
	FROM (SELECT seq, kind FROM outbox_held WHERE aggregate = a
		ORDER BY seq LIMIT $2) AS first) AS next
WHERE next.free AND h.seq = next.seq AND h.due = 'infinity'`

// release deletes held rows that are published now, and makes the rows that waited for them due.
func release(ctx context.Context, tx pg.Fenced, released []heldRow) error {
	if len(released) == 0 {
		return nil
	}
	var seqs pq.Int64Array
	var aggregates pq.StringArray
	for _, h := range released {
		seqs, aggregates = append(seqs, h.seq), append(aggregates, h.aggregate)
	}
	if _, err := tx.Tx().ExecContext(ctx, `DELETE FROM outbox_held WHERE seq = ANY($1)`,
		seqs); err != nil {
		return wrap("release held rows", err)
	}
	slices.Sort(aggregates)
	_, err := tx.Tx().ExecContext(ctx, nextDueSQL, slices.Compact(aggregates), maxHeldBatch)
	return wrap("release held rows", err)
}

// wrap adds what was attempted to an error, if there is one.
func wrap(action string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}
