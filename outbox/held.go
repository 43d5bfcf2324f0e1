package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/rabbit"
)

// retryHeld publishes held rows that are due, one batch in each call: what is held must not keep
// the others waiting. While some are released, the next batch has its turn at the next call.
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

// dueSQL reads what is due, through its index alone. A row is early while one before it of its
// aggregate has not had its turn; the rows of an aggregate that are due together are published
// together.
const dueSQL = `
SELECT seq, aggregate, attempts, EXISTS (
	SELECT FROM outbox_held AS b WHERE b.aggregate = h.aggregate AND b.seq < h.seq
		AND b.due > h.due) AS early
FROM outbox_held AS h WHERE due <= now() AND due < 'infinity' ORDER BY due, seq LIMIT $1`

// dueHeld reads the held rows that are due, in the order of seq, and apart from them those that are
// early.
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

// heldAggregatesSQL finds, of these aggregates, those with a held row.
const heldAggregatesSQL = `
SELECT a FROM unnest($1::text[]) AS a, LATERAL (SELECT FROM outbox_held
	WHERE aggregate = a LIMIT 1) AS h`

// findHeld looks for what is held of the aggregates of these rows, and tells which of the rows are
// held themselves.
func (t *term) findHeld(ctx context.Context, rows []row) (held map[int64]bool, err error) {
	t.heldAggregates = map[string]bool{}
	for _, f := range t.inFlight { // what joins held rows, and is not written yet
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
		return nil, wrap("look for what is held", err)
	}
	for _, aggregate := range found {
		t.heldAggregates[aggregate] = true
	}
	var again []int64
	if err := t.conn.SelectContext(ctx, &again, `SELECT seq FROM outbox_held WHERE seq = ANY($1)`,
		seqs); err != nil {
		return nil, wrap("look for what is held", err)
	}
	held = map[int64]bool{}
	for _, seq := range again {
		held[seq] = true
	}
	return held, nil
}

// countHeld counts what is held, once for each lead.
func (t *term) countHeld(ctx context.Context) error {
	if err := t.conn.GetContext(ctx, &t.heldCount, `SELECT count(*) FROM outbox_held`); err != nil {
		return wrap("count held rows", err)
	}
	return t.countRefused(ctx)
}

// countRefusedSQL counts no further than to the bound.
const countRefusedSQL = `
SELECT count(*) FROM (SELECT FROM outbox_held WHERE kind = 'refused'
	AND due < 'infinity' LIMIT $1) AS refused`

func (t *term) countRefused(ctx context.Context) error {
	t.relay.held.Store(int64(t.heldCount))
	return wrap("count refused rows", t.conn.GetContext(ctx, &t.refusedCount, countRefusedSQL, MaxHeld))
}

// publishDue tells whether any of them was published.
func (t *term) publishDue(ctx context.Context, due []heldRow, outOfTurn []int64) (changed bool,
	err error) {
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
	released, again, intact := t.settleHeld(due, outcomes)
	if !intact {
		if err == nil {
			err = t.unknownOutcome()
		}
		others := 0
		for _, f := range t.inFlight {
			others += len(f.publish)
		}
		again = append(again, t.quarantineSuspect(due[len(released)+len(again):], others, err)...)
	}
	t.logHeld(append(again, unfit...))
	if err := t.lead.Tx(ctx, func(tx postgres.Fenced) error {
		if err := postpone(ctx, tx, outOfTurn); err != nil {
			return err
		}
		if err := writeHolds(ctx, tx, append(again, unfit...)); err != nil {
			return err
		}
		return release(ctx, tx, released)
	}); err != nil {
		return false, err
	}
	t.relay.published.Add(int64(len(released)))
	return len(released) > 0, err
}

// quarantineSuspect is condemn unless the broker has said which rows it does not take.
func (t *term) quarantineSuspect(unsettled []heldRow, others int, why error) []heldRow {
	if t.relay.limits.learn(why) {
		return nil
	}
	return t.quarantine(unsettled, others, rabbit.ServerCode(why), why.Error())
}

// splitDue divides held rows by whether they can be published. What is held is not deleted; but a
// stream may have had a row before its commit can be seen here, while that waits for a synchronous
// standby. And what does not fit stays so, though somebody has asked for it.
func splitDue(due []heldRow, rows []row) (fit []heldRow, publish []row, unfit []heldRow) {
	found := map[int64]row{}
	for _, r := range rows {
		found[r.seq] = r
	}
	for _, h := range due {
		switch r, seen := found[h.seq]; {
		case !seen:
			h.attempts++
			h.kind, h.retryIn = heldUnseen, backoff(h.attempts, rabbit.Refused)
			h.reason = "its row is not in the outbox: it was deleted there, or its commit still waits for " +
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

// postpone lets rows wait whose turn has not come.
func postpone(ctx context.Context, tx postgres.Fenced, seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
	_, err := tx.Tx().ExecContext(ctx, `UPDATE outbox_held SET due = 'infinity', kind = 'behind'
		WHERE seq = ANY($1)`, pq.Int64Array(seqs))
	return wrap("hold rows behind others", err)
}

// nextDueSQL gives the first rows of an aggregate their turn, up to the first that is held for a cause
// of its own.
const nextDueSQL = `
UPDATE outbox_held AS h SET due = now() FROM unnest($1::text[]) AS a, LATERAL (
	SELECT seq, bool_and(kind = 'behind') OVER (ORDER BY seq) AS free
	FROM (SELECT seq, kind FROM outbox_held WHERE aggregate = a
		ORDER BY seq LIMIT $2) AS first) AS next
WHERE next.free AND h.seq = next.seq AND h.due = 'infinity'`

// release forgets held rows that are published now, and lets those behind them go next.
func release(ctx context.Context, tx postgres.Fenced, released []heldRow) error {
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

// repairHeldSQL gives first rows their turn that wait behind nothing, as a former release of the relay
// may leave them, of the next aggregates.
const repairHeldSQL = `
WITH RECURSIVE head AS (
	(SELECT aggregate, seq, kind, 1 AS n FROM outbox_held WHERE aggregate > $1 ORDER BY aggregate,
		seq LIMIT 1)
	UNION ALL
	SELECT next.*, n + 1 FROM head, LATERAL (
		SELECT aggregate, seq, kind FROM outbox_held AS h WHERE h.aggregate > head.aggregate
			ORDER BY aggregate, seq LIMIT 1) AS next
	WHERE n < $2
), repaired AS (
	UPDATE outbox_held AS h SET due = now() FROM head
	WHERE head.kind = 'behind' AND h.seq = head.seq AND h.kind = 'behind' AND h.due = 'infinity'
)
SELECT max(aggregate) AS reached FROM head`

// repairHeld goes once through what is held, while others are relayed.
func (r *Relay) repairHeld(ctx context.Context, lead *postgres.Lead) {
	for after := ""; ctx.Err() == nil; {
		var reached *string
		err := lead.Tx(ctx, func(tx postgres.Fenced) error {
			return tx.Tx().GetContext(ctx, &reached, repairHeldSQL, after, maxRepaired)
		})
		if err != nil && ctx.Err() == nil {
			r.Log.Warn().Err(err).Msg("held events are not looked through, the next leader does it")
		}
		if err != nil || reached == nil {
			return
		}
		after = *reached
	}
}

func wrap(action string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}
