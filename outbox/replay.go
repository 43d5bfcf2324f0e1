package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// replayRequest is a row of outbox_replay that has not ended.
type replayRequest struct {
	ID      int64         `db:"id"`
	Seqs    pq.Int64Array `db:"seqs"`     // the requested rows, or
	Since   *time.Time    `db:"since"`    // all rows since this time
	LastSeq int64         `db:"last_seq"` // the highest seq at the time of the request
	Reached int64         `db:"reached"`  // the seq up to which the request is executed
}

// replayRow is the present state of a requested row.
type replayRow struct {
	Seq     int64   `db:"seq"`
	Settled bool    `db:"settled"` // the cursor has passed it
	Held    *string `db:"held"`    // the reason for which it is held; nil: it is not held
	Due     bool    `db:"due"`     // it is held, and its next attempt is due
}

// replayResult counts the outcomes of one batch of a request.
type replayResult struct {
	published, refused, held int
	reason                   string // of the last row that was refused or is held
	ended                    bool   // the request has no further rows
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

// replayNext publishes the next batch of the oldest open request, at most one batch in each
// replayInterval: a replay of a long history must leave the broker and the consumers capacity for
// new events. It waits while the broker is blocked or broken, and while a row is being isolated.
func (t *term) replayNext(ctx context.Context) error {
	if time.Now().Before(t.replayAt) || t.publisher.Blocked() || t.brokerBroken() || t.suspects > 0 {
		return nil
	}
	t.replayAt = time.Now().Add(replayIdle)
	var requests []replayRequest
	err := t.conn.SelectContext(ctx, &requests, `SELECT id, seqs, since, last_seq, reached
		FROM outbox_replay WHERE ended_at IS NULL ORDER BY id LIMIT 1`)
	if err != nil || len(requests) == 0 {
		return wrap("find replay request", err)
	}
	t.replayAt = time.Now().Add(replayInterval)
	request := requests[0]
	next, err := t.nextReplay(ctx, request)
	if err != nil {
		return err
	}
	if len(next) == 0 {
		return t.skipReplay(ctx, request)
	}
	seqs, reached, r := splitReplay(next)
	if reached == 0 {
		return nil // the relay is about to publish the first of them anyway
	}
	request.Reached = reached
	return t.publishReplay(ctx, request, seqs, r)
}

// skipReplay moves a request over rows that are older than requested, or ends it when no rows are
// left.
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

// splitReplay divides the next rows of a request into those to publish and those that are held. It
// stops before the first row that is not settled yet, or whose next attempt is due: the relay is
// about to publish that row, and a replay must not overtake the first publication.
func splitReplay(next []replayRow) (seqs []int64, reached int64, r replayResult) {
	for _, n := range next {
		switch {
		case n.Held != nil && n.Due, n.Held == nil && !n.Settled:
			return seqs, reached, r
		case n.Held != nil:
			r.held, r.reason = r.held+1, "held: "+*n.Held
		default:
			seqs = append(seqs, n.Seq)
		}
		reached = n.Seq
	}
	return seqs, reached, r
}

// publishReplay publishes rows of a request and saves their outcomes. A row that fails is not held:
// it was published before, and the request counts it as refused.
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
	for i := range rows {
		if fault := rows[i].fault; fault != nil {
			r.refuse(fault.Error())
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
	// The next session publishes the batch again. When the broker blames a message, and no other rows
	// were in flight, each further batch of this request has a single row; the one that then ends the
	// session is refused.
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

// nextReplaySQL reads the next rows of a request. A row is settled when the cursor has passed it,
// in an earlier window or in the one that is open.
const nextReplaySQL = `
SELECT o.seq, h.reason AS held, coalesce(h.due <= now(), false) AS due,
	pg_visible_in_snapshot(o.txid, $1::pg_snapshot) OR pg_visible_in_snapshot(o.txid, $2::pg_snapshot)
		AND o.seq <= $3 AS settled
FROM (%s) AS o LEFT JOIN outbox_held AS h USING (seq) ORDER BY o.seq`

// nextReplay returns the next rows of a request. It reads a bounded part of the outbox, since the
// requested rows may be far apart and new events wait while the relay searches for them.
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

// saveReplay saves the progress of a request. When the request ends, requested events that are no
// longer in the outbox count as refused. A request is done only when the broker has confirmed all
// of its events; otherwise it has ended without being done.
func (t *term) saveReplay(ctx context.Context, request replayRequest, r replayResult) error {
	if r.ended {
		t.relay.replayOneByOne = false
	}
	err := t.lead.Tx(ctx, func(tx pg.Fenced) error {
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
	return wrap("save replay", err)
}
