package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// replay is the execution of replay requests: one request at a time, and one batch of it in the
// queue.
type replay struct {
	request int64     // whose rows are in the queue
	nextAt  time.Time // the time to look for the next batch
}

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

// replayProgress counts the results of some rows of a request.
type replayProgress struct {
	reached                  int64 // the seq of the last of them; 0: there are none
	published, refused, held int
	reason                   string // of the last row that was refused or is held
	ended                    bool   // the request has no further rows
}

// add counts an attempt. A row that fails is not held: it was published before, and the request
// counts it as refused.
func (p *replayProgress) add(a attempt) {
	p.reached = a.seq
	switch a.result {
	case confirmed:
		p.published++
	case passed:
		p.held, p.reason = p.held+1, a.reason
	case unseen:
		p.refused, p.reason = p.refused+1, "it is no longer in the outbox"
	default:
		p.refused, p.reason = p.refused+1, a.reason
	}
}

// replayNext publishes the next batch of the oldest open request, at most one batch in each
// replayInterval: a replay of a long history must leave the broker and the consumers capacity for
// new events.
func (t *term) replayNext(ctx context.Context) error {
	r := &t.replay
	if time.Now().Before(r.nextAt) || t.waiting(ofReplay) {
		return nil
	}
	r.nextAt = time.Now().Add(replayIdle)
	var requests []replayRequest
	err := t.conn.SelectContext(ctx, &requests, `SELECT id, seqs, since, last_seq, reached
		FROM outbox_replay WHERE ended_at IS NULL ORDER BY id LIMIT 1`)
	if err != nil || len(requests) == 0 {
		return wrap("find replay request", err)
	}
	r.nextAt = time.Now().Add(replayInterval)
	r.request = requests[0].ID
	next, err := nextReplay(ctx, t.conn, requests[0], t.cursor.position)
	if err != nil {
		return err
	}
	if len(next) == 0 {
		p, err := skipReplay(ctx, t.conn, requests[0])
		if err != nil {
			return err
		}
		return t.apply(ctx, changes{replayed: p})
	}
	attempts := splitReplay(next)
	if err := t.fill(ctx, attempts); err != nil {
		return err
	}
	return t.send(ctx, attempts)
}

// skipReplay moves a request over rows that are older than requested, or ends it when no rows are
// left.
func skipReplay(ctx context.Context, conn *sqlx.Conn, request replayRequest) (p replayProgress,
	err error) {
	if request.Since != nil {
		err := conn.GetContext(ctx, &p.reached, `SELECT coalesce(max(seq), 0) FROM (
			SELECT seq FROM outbox WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3) AS scan`,
			request.Reached, request.LastSeq, replayScan)
		if err != nil {
			return p, wrap("find rows to replay", err)
		}
	}
	p.ended = p.reached == 0
	return p, nil
}

// splitReplay makes attempts of the next rows of a request, without their contents. A row that is
// held is passed over. It stops before the first row that is not settled yet, or whose next attempt
// is due: the relay is about to publish that row, and a replay must not overtake the first
// publication.
func splitReplay(next []replayRow) (attempts []attempt) {
	for _, n := range next {
		a := attempt{origin: ofReplay, row: row{seq: n.Seq}}
		switch {
		case n.Held != nil && n.Due, n.Held == nil && !n.Settled:
			return attempts
		case n.Held != nil:
			a.result, a.reason = passed, "held: "+*n.Held
		}
		attempts = append(attempts, a)
	}
	return attempts
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
func nextReplay(ctx context.Context, conn *sqlx.Conn, request replayRequest,
	at position) (next []replayRow, err error) {
	where, args := `SELECT o.seq, o.txid FROM outbox AS o JOIN unnest($6::bigint[]) AS s (seq)
		ON s.seq = o.seq WHERE o.seq > $4 ORDER BY o.seq LIMIT $5`,
		[]any{string(at.A), string(at.B), at.LastSeq, request.Reached, replayBatch}
	if request.Since == nil {
		args = append(args, request.Seqs)
	} else {
		where = `SELECT seq, txid FROM (SELECT seq, txid, created_at FROM outbox WHERE seq > $4
			AND seq <= $6 ORDER BY seq LIMIT $8) AS scan
			WHERE created_at >= $7 ORDER BY seq LIMIT $5`
		args = append(args, request.LastSeq, request.Since, replayScan)
	}
	err = conn.SelectContext(ctx, &next, fmt.Sprintf(nextReplaySQL, where), args...)
	return next, wrap("find rows to replay", err)
}

// save adds progress to the request. When the request ends, requested events that are no longer in
// the outbox count as refused. A request is done only when the broker has confirmed all of its
// events; otherwise it has ended without being done.
func (r *replay) save(ctx context.Context, tx pg.Fenced, p replayProgress) error {
	if p == (replayProgress{}) {
		return nil
	}
	_, err := tx.Tx().ExecContext(ctx, `UPDATE outbox_replay SET reached = greatest(reached, $2),
		published = published + $3, refused = refused + $4,
		held = held + $5, reason = coalesce(nullif($6, ''), reason) WHERE id = $1`,
		r.request, p.reached, p.published, p.refused, p.held, p.reason)
	if err != nil || !p.ended {
		return wrap("save replay", err)
	}
	_, err = tx.Tx().ExecContext(ctx, `UPDATE outbox_replay SET ended_at = now(),
		refused = refused + gone,
		reason = CASE WHEN gone > 0 THEN 'it is no longer in the outbox' ELSE reason END,
		done_at = CASE WHEN refused + held + gone = 0 THEN now() END
		FROM (SELECT greatest(0, cardinality(seqs) - published - refused - held) AS gone
			FROM outbox_replay WHERE id = $1) AS g
		WHERE id = $1`, r.request)
	return wrap("save replay", err)
}
