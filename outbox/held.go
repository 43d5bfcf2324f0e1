package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// retryHeld publishes one batch of held rows that are due. It is one batch in each call, so that
// any number of held rows does not delay new ones. As long as a batch releases rows, the next call
// does not wait for heldInterval: the rows behind the released ones are due at once.
func (t *term) retryHeld(ctx context.Context) error {
	if t.heldCount == 0 || t.publisher.Blocked() || time.Since(t.heldCheckedAt) < heldInterval {
		return nil
	}
	due, outOfTurn, err := t.dueHeld(ctx)
	if err != nil {
		return err
	}
	released := false
	if len(due)+len(outOfTurn) > 0 {
		if released, err = t.publishDue(ctx, due, outOfTurn); err != nil {
			return err
		}
		if err := t.countRefused(ctx); err != nil {
			return err
		}
	}
	if !released {
		t.heldCheckedAt = time.Now()
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
func (t *term) dueHeld(ctx context.Context) (due []heldRow, outOfTurn []int64, err error) {
	var rows []struct {
		Seq       int64  `db:"seq"`
		Aggregate string `db:"aggregate"`
		Attempts  int    `db:"attempts"`
		Early     bool   `db:"early"`
	}
	if err := t.conn.SelectContext(ctx, &rows, dueSQL, t.batch(maxHeldBatch)); err != nil {
		return nil, nil, wrap("find held rows", err)
	}
	for _, r := range rows {
		if r.Early {
			outOfTurn = append(outOfTurn, r.Seq)
			continue
		}
		due = append(due, heldRow{seq: r.Seq, aggregate: r.Aggregate, attempts: r.Attempts})
	}
	slices.SortFunc(due, func(a, b heldRow) int { return int(a.seq - b.seq) })
	return due, outOfTurn, nil
}

// heldAggregatesSQL finds those of the given aggregates that have a held row. It reads one row of
// each, because thousands of rows may be held behind the first.
const heldAggregatesSQL = `
SELECT a FROM unnest($1::text[]) AS a, LATERAL (SELECT FROM outbox_held
	WHERE aggregate = a LIMIT 1) AS h`

// findHeld sets heldAggregates for these rows, and returns which of the rows are held themselves.
// The relay reads the table for each batch instead of remembering all held aggregates, whose number
// has no bound.
func (t *term) findHeld(ctx context.Context, rows []row) (held map[int64]bool, err error) {
	t.heldAggregates = map[string]bool{}
	// The rows to hold of parts in flight are not in the table yet.
	for _, f := range t.inFlight {
		for _, h := range f.hold {
			t.heldAggregates[h.aggregate] = true
		}
	}
	if t.heldCount == 0 {
		return nil, nil
	}
	seqs := make(pq.Int64Array, len(rows))
	var aggregates pq.StringArray
	for i, r := range rows {
		seqs[i] = r.seq
		aggregates = append(aggregates, r.record.Subject)
	}
	slices.Sort(aggregates)
	var found []string
	if err := t.conn.SelectContext(ctx, &found, heldAggregatesSQL,
		slices.Compact(aggregates)); err != nil {
		return nil, wrap("find held aggregates", err)
	}
	for _, aggregate := range found {
		t.heldAggregates[aggregate] = true
	}
	var heldSeqs []int64
	if err := t.conn.SelectContext(ctx, &heldSeqs, `SELECT seq FROM outbox_held WHERE seq = ANY($1)`,
		seqs); err != nil {
		return nil, wrap("find rows that are held already", err)
	}
	held = map[int64]bool{}
	for _, seq := range heldSeqs {
		held[seq] = true
	}
	return held, nil
}

// countHeld counts the held rows once in each term, which then counts along: the cost of a count
// over the table grows with the held rows.
func (t *term) countHeld(ctx context.Context) error {
	if err := t.conn.GetContext(ctx, &t.heldCount, `SELECT count(*) FROM outbox_held`); err != nil {
		return wrap("count held rows", err)
	}
	return t.countRefused(ctx)
}

// countRefusedSQL counts up to MaxHeld and no further, which bounds its cost.
const countRefusedSQL = `
SELECT count(*) FROM (SELECT FROM outbox_held WHERE kind = 'refused'
	AND due < 'infinity' LIMIT $1) AS refused`

// countRefused counts from the table after each batch: a replay request may have made quarantined
// rows due, and released rows may have been of any kind.
func (t *term) countRefused(ctx context.Context) error {
	t.relay.held.Store(int64(t.heldCount))
	return wrap("count refused rows", t.conn.GetContext(ctx, &t.refusedCount, countRefusedSQL,
		MaxHeld))
}

// publishDue publishes held rows that are due, and postpones those that are out of turn. It reports
// whether the broker confirmed any of them.
func (t *term) publishDue(ctx context.Context, due []heldRow, outOfTurn []int64) (bool, error) {
	seqs := make([]int64, len(due))
	for i, h := range due {
		seqs[i] = h.seq
	}
	rows, err := t.rows(ctx, seqs)
	if err != nil {
		return false, err
	}
	t.relay.limits.markUnfit(rows)
	due, rows, unfit := splitDue(due, rows)
	var outcomes []outcome
	confirms, err := t.publisher.Publish(t.messages(rows))
	if err == nil {
		if outcomes, err = t.awaitConfirms(ctx, rows, confirms); err != nil {
			return false, err
		}
	}
	released, holds, intact := t.settleHeld(due, outcomes)
	if !intact { // the broker session has ended
		if err == nil {
			err = t.unknownOutcome()
		}
		otherInFlight := 0
		for _, f := range t.inFlight {
			otherInFlight += len(f.publish)
		}
		unsettled := due[len(released)+len(holds):]
		holds = append(holds, t.quarantineSuspect(unsettled, otherInFlight, err)...)
	}
	holds = append(holds, unfit...)
	t.logHeld(holds)
	// One transaction: a crash must not leave a row released and the rows behind it without a
	// schedule.
	if err := t.lead.Tx(ctx, func(tx pg.Fenced) error {
		if err := postpone(ctx, tx, outOfTurn); err != nil {
			return err
		}
		if err := writeHolds(ctx, tx, holds); err != nil {
			return err
		}
		return release(ctx, tx, released)
	}); err != nil {
		return false, err
	}
	t.relay.published.Add(int64(len(released)))
	return len(released) > 0, err
}

// quarantineSuspect quarantines the row that must have ended the session, unless the broker's
// reason names a limit: markUnfit then finds all rows that exceed it.
func (t *term) quarantineSuspect(unsettled []heldRow, otherInFlight int, why error) []heldRow {
	if t.relay.limits.learn(why) {
		return nil
	}
	return t.quarantine(unsettled, otherInFlight, rabbit.ServerCode(why), why.Error())
}

// splitDue divides held rows into those that can be published and those that cannot. The retention
// does not delete held rows, but a row may be missing all the same: a stream delivers rows whose
// commit still waits for a synchronous standby, and no query sees them until then. A row with
// a fault stays held, even if an operator has requested its replay.
func splitDue(due []heldRow, rows []row) (fit []heldRow, publish []row, unfit []heldRow) {
	found := map[int64]row{}
	for _, r := range rows {
		found[r.seq] = r
	}
	for _, h := range due {
		switch r, visible := found[h.seq]; {
		case !visible:
			h.attempts++
			h.kind, h.retryIn = heldUnseen, backoff(h.attempts, rabbit.Refused)
			h.reason = "its row is not in the outbox: it was deleted, or its commit still waits for " +
				"a synchronous standby"
			unfit = append(unfit, h)
		case r.fault != nil:
			h.kind, h.reason, h.retryIn = heldQuarantined, r.fault.Error(), noRetry
			unfit = append(unfit, h)
		default:
			fit, publish = append(fit, h), append(publish, r)
		}
	}
	return fit, publish, unfit
}

// postpone makes rows wait until the earlier rows of their aggregate are released.
func postpone(ctx context.Context, tx pg.Fenced, seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
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
