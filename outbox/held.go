package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/rabbit"
)

// retryHeld publishes held rows that are due, the oldest of each aggregate, until none is due.
func (p *pump) retryHeld(ctx context.Context) error {
	if p.held == 0 || p.publisher.Blocked() || time.Since(p.heldPassed) < heldInterval {
		return nil
	}
	for changed := true; changed; {
		p.heldPassed = time.Now()
		heads, err := p.heads(ctx)
		if err != nil || len(heads) == 0 {
			return err
		}
		if changed, err = p.retryHeads(ctx, heads); err != nil {
			return err
		}
		if err := p.loadHeld(ctx); err != nil {
			return err
		}
	}
	return nil
}

// headsSQL goes from aggregate to aggregate through the index, so that it costs nothing how many rows wait
// behind one that is held for ever.
const headsSQL = `
WITH RECURSIVE head AS (
	(SELECT aggregate, seq FROM outbox_held ORDER BY aggregate, seq LIMIT 1)
	UNION ALL
	SELECT next.* FROM head, LATERAL (
		SELECT aggregate, seq FROM outbox_held AS h WHERE h.aggregate > head.aggregate ORDER BY aggregate, seq LIMIT 1) AS next)
SELECT seq, aggregate, attempts FROM head JOIN outbox_held USING (aggregate, seq) WHERE due <= now() ORDER BY seq LIMIT $1`

// heads reads the held rows that are due and behind no other.
func (p *pump) heads(ctx context.Context) ([]hold, error) {
	var rows []struct {
		Seq       int64  `db:"seq"`
		Aggregate string `db:"aggregate"`
		Attempts  int    `db:"attempts"`
	}
	err := p.conn.SelectContext(ctx, &rows, headsSQL, p.batch(maxHeldBatch))
	if err != nil {
		return nil, wrap("find held rows", err)
	}
	heads := make([]hold, len(rows))
	for i, r := range rows {
		heads[i] = hold{seq: r.Seq, aggregate: r.Aggregate, attempts: r.Attempts}
	}
	return heads, nil
}

// heldAmong tells which of these rows are held.
func (p *pump) heldAmong(ctx context.Context, rows []row) (map[int64]bool, error) {
	if p.held == 0 {
		return nil, nil
	}
	seqs := make(pq.Int64Array, len(rows))
	for i, r := range rows {
		seqs[i] = r.seq
	}
	var found []int64
	if err := p.relay.Outbox.db.SelectContext(ctx, &found, `SELECT seq FROM outbox_held WHERE seq = ANY($1)`, seqs); err != nil {
		return nil, wrap("find held rows", err)
	}
	held := map[int64]bool{}
	for _, seq := range found {
		held[seq] = true
	}
	return held, nil
}

// retryHeads tells whether any of them was published.
func (p *pump) retryHeads(ctx context.Context, heads []hold) (changed bool, err error) {
	seqs := make([]int64, len(heads))
	for i, h := range heads {
		seqs[i] = h.seq
	}
	rows, err := p.rows(ctx, seqs)
	if err != nil {
		return false, err
	}
	heads, rows, unfit, unseen := sortHeads(heads, rows)
	var outcomes []outcome
	pendings, err := p.publisher.Publish(p.messages(rows))
	if err == nil {
		if outcomes, err = p.await(ctx, pendings); err != nil {
			return false, err
		}
	}
	released, again, intact := p.retried(heads, outcomes)
	if !intact {
		if err == nil {
			err = p.unknownFate()
		}
		others := 0
		for _, f := range p.flying {
			others += len(f.publish)
		}
		again = append(again, p.condemn(heads[len(released)+len(again):], others, rabbit.ServerCode(err), err.Error())...)
		p.log(again)
	}
	if err := p.lead.Tx(ctx, func(tx postgres.Fenced) error {
		if err := release(ctx, tx, released); err != nil {
			return err
		}
		if err := putOff(ctx, tx, unseen); err != nil {
			return err
		}
		return putAside(ctx, tx, append(again, unfit...))
	}); err != nil {
		return false, err
	}
	p.relay.published.Add(int64(len(released)))
	return len(released) > 0, err
}

// sortHeads divides held rows by whether they can be published. What is held is not deleted; but a stream may
// have had a row before its commit can be seen here, while that waits for a synchronous standby. And what
// does not fit stays so, though somebody has asked for it.
func sortHeads(heads []hold, rows []row) (fit []hold, publish []row, unfit []hold, unseen []int64) {
	found := map[int64]row{}
	for _, r := range rows {
		found[r.seq] = r
	}
	for _, h := range heads {
		switch r, seen := found[h.seq]; {
		case !seen:
			unseen = append(unseen, h.seq)
		case r.fault != nil:
			h.reason, h.due = r.fault.Error(), holdForever
			unfit = append(unfit, h)
		default:
			fit, publish = append(fit, h), append(publish, r)
		}
	}
	return fit, publish, unfit, unseen
}

// putOff lets held rows wait that are not seen yet, so that they take nobody's turn.
func putOff(ctx context.Context, tx postgres.Fenced, seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
	_, err := tx.Tx().ExecContext(ctx, `UPDATE outbox_held SET due = now() + $2 * interval '1 second' WHERE seq = ANY($1)`, pq.Int64Array(seqs), holdFirst.Seconds())
	return wrap("put held rows off", err)
}

// release forgets held rows that are published now.
func release(ctx context.Context, tx postgres.Fenced, seqs []int64) error {
	_, err := tx.Tx().ExecContext(ctx, `DELETE FROM outbox_held WHERE seq = ANY($1)`, pq.Int64Array(seqs))
	return wrap("release held rows", err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
