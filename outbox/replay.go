package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/rabbit"
)

// replayRequest is an open request.
type replayRequest struct {
	ID      int64         `db:"id"`
	Seqs    pq.Int64Array `db:"seqs"`
	Since   *time.Time    `db:"since"`
	LastSeq int64         `db:"last_seq"`
	Reached int64         `db:"reached"`
}

// replayRow is a row of a request, as it is when its turn comes.
type replayRow struct {
	Seq     int64   `db:"seq"`
	Settled bool    `db:"settled"` // the relay has passed it
	Held    *string `db:"held"`    // why it is held
	Due     bool    `db:"due"`     // it is held, and about to be tried
}

// replayResult is what became of a part of a request.
type replayResult struct {
	published, refused, held int
	reason                   string
	ended                    bool
}

func (r *replayResult) refuse(reason string) { r.refused, r.reason = r.refused+1, reason }

func (r *replayResult) add(outcomes []outcome) {
	for _, o := range outcomes {
		if o.kind == rabbit.Confirmed {
			r.published++
		} else {
			r.refuse(o.reason)
		}
	}
}

// replayNext publishes the next batch of the oldest open request, when its time has come.
func (t *term) replayNext(ctx context.Context) error {
	if time.Now().Before(t.replayAt) || t.publisher.Blocked() || t.brokerBroken() || t.suspects > 0 {
		return nil
	}
	t.replayAt = time.Now().Add(replayIdle)
	var open []replayRequest
	err := t.conn.SelectContext(ctx, &open, `SELECT id, seqs, since, last_seq, reached
		FROM outbox_replay WHERE ended_at IS NULL ORDER BY id LIMIT 1`)
	if err != nil || len(open) == 0 {
		return wrap("look for replays", err)
	}
	t.replayAt = time.Now().Add(replayInterval)
	request := open[0]
	next, err := t.nextReplay(ctx, request)
	if err != nil {
		return err
	}
	if len(next) == 0 {
		return t.skipReplay(ctx, request)
	}
	seqs, reached, r := splitReplay(next)
	if reached == 0 {
		return nil // the first of them is on its way
	}
	request.Reached = reached
	return t.publishReplay(ctx, request, seqs, r)
}

// skipReplay goes over rows none of which is asked for, or ends a request.
func (t *term) skipReplay(ctx context.Context, request replayRequest) error {
	var scanned int64
	if request.Since != nil {
		err := t.conn.GetContext(ctx, &scanned, `SELECT coalesce(max(seq), 0) FROM (
			SELECT seq FROM outbox WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3) AS scan`,
			request.Reached, request.LastSeq, replayScan)
		if err != nil {
			return wrap("find rows to replay", err)
		}
	}
	if scanned == 0 {
		return t.saveReplay(ctx, request, replayResult{ended: true})
	}
	request.Reached = scanned
	return t.saveReplay(ctx, request, replayResult{})
}

// splitReplay divides the next rows of a request: those to publish, and those that are held. It ends
// before the first that the relay has not settled yet, or that is about to be tried: what is on its
// way is not published again before it was published.
func splitReplay(next []replayRow) (seqs []int64, reached int64, r replayResult) {
	for _, a := range next {
		switch {
		case a.Held != nil && a.Due, a.Held == nil && !a.Settled:
			return seqs, reached, r
		case a.Held != nil:
			r.held, r.reason = r.held+1, "held: "+*a.Held
		default:
			seqs = append(seqs, a.Seq)
		}
		reached = a.Seq
	}
	return seqs, reached, r
}

// publishReplay publishes rows and notes what became of them.
func (t *term) publishReplay(ctx context.Context, request replayRequest, seqs []int64,
	r replayResult) error {
	rows, err := t.rows(ctx, seqs)
	if err != nil {
		return err
	}
	for range len(seqs) - len(rows) {
		r.refuse("it is no longer in the outbox")
	}
	t.relay.limits.markUnfit(rows)
	for _, row := range rows {
		if row.fault != nil {
			r.refuse(row.fault.Error())
		}
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return r.fault != nil })
	confirms, err := t.publisher.Publish(t.messages(rows))
	if err == nil {
		var outcomes []outcome
		if outcomes, err = t.awaitConfirms(ctx, rows, confirms); err != nil {
			return err
		}
		if len(outcomes) == len(rows) &&
			(len(rows) == 0 || outcomes[len(rows)-1].kind != rabbit.Unknown) {
			r.add(outcomes)
			return t.saveReplay(ctx, request, r)
		}
		err = t.unknownOutcome()
	}
	// With the next session the batch is published again; when one of its rows is to blame, one at a
	// time from then on, until it is found.
	if t.relay.limits.learn(err) || !blamesMessage(rabbit.ServerCode(err)) || len(t.inFlight) > 0 {
		return err
	}
	if len(seqs) > 1 {
		t.relay.replayOneByOne = true
		return err
	}
	r.refuse(err.Error())
	return errors.Join(err, t.saveReplay(ctx, request, r))
}

// nextReplaySQL reads the rows that come next in a request. Settled is what the cursor has passed,
// in the window that is still open as well.
const nextReplaySQL = `
SELECT o.seq, h.reason AS held, coalesce(h.due <= now(), false) AS due,
	pg_visible_in_snapshot(o.txid, $1::pg_snapshot) OR pg_visible_in_snapshot(o.txid, $2::pg_snapshot)
		AND o.seq <= $3 AS settled
FROM (%s) AS o LEFT JOIN outbox_held AS h USING (seq) ORDER BY o.seq`

// nextReplay returns the next rows of a request, of a bounded part of the outbox: rows that are
// asked for may be far between, and the others must not wait while they are looked for.
func (t *term) nextReplay(ctx context.Context, request replayRequest) (next []replayRow,
	err error) {
	size := replayBatch
	if t.relay.replayOneByOne {
		size = 1
	}
	where, args := `SELECT o.seq, o.txid FROM outbox AS o JOIN unnest($6::bigint[]) AS s (seq)
		ON s.seq = o.seq WHERE o.seq > $4 ORDER BY o.seq LIMIT $5`,
		[]any{string(t.cursor.A), string(t.cursor.B), t.cursor.LastSeq, request.Reached, size}
	if request.Since == nil {
		args = append(args, request.Seqs)
	} else {
		where = `SELECT seq, txid FROM (SELECT seq, txid, created_at FROM outbox WHERE seq > $4
			AND seq <= $6 ORDER BY seq LIMIT $8) AS scan
			WHERE created_at >= $7 ORDER BY seq LIMIT $5`
		args = append(args, request.LastSeq, request.Since, replayScan)
	}
	err = t.conn.SelectContext(ctx, &next, fmt.Sprintf(nextReplaySQL, where), args...)
	return next, wrap("find rows to replay", err)
}

// saveReplay writes how far a request has come. When it ends, events that were asked for by their
// ids and are no longer in the outbox count as refused; it is done only when all were published and
// confirmed.
func (t *term) saveReplay(ctx context.Context, request replayRequest, r replayResult) error {
	if r.ended {
		t.relay.replayOneByOne = false
	}
	err := t.lead.Tx(ctx, func(tx postgres.Fenced) error {
		_, err := tx.Tx().ExecContext(ctx, `UPDATE outbox_replay SET reached = $2,
			published = published + $3, refused = refused + $4,
			held = held + $5, reason = coalesce(nullif($6, ''), reason) WHERE id = $1`,
			request.ID, request.Reached, r.published, r.refused, r.held, r.reason)
		if err != nil || !r.ended {
			return err
		}
		_, err = tx.Tx().ExecContext(ctx, `UPDATE outbox_replay SET ended_at = now(),
			refused = refused + gone,
			reason = CASE WHEN gone > 0 THEN 'it is no longer in the outbox' ELSE reason END,
			done_at = CASE WHEN refused + held + gone = 0 THEN now() END
			FROM (SELECT greatest(0, cardinality(seqs) - published - refused - held) AS gone
				FROM outbox_replay WHERE id = $1) AS g
			WHERE id = $1`, request.ID)
		return err
	})
	return wrap("note replay", err)
}
