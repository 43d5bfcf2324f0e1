package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/rabbit"
)

// The bounds of republishing. Its rate is that of one batch in each interval: 1000 events a second.
const (
	republishBatch    = 100
	republishInterval = 100 * time.Millisecond
	republishIdle     = 200 * time.Millisecond
	republishSearch   = "5min" // for the rows that are asked for: it reads the whole history once
	maxRepublishIDs   = 1000
	maxRepublications = 100 // that are listed
)

// ErrNoSuchEvent says that an event is not in the outbox: it was never said here, or its time has
// passed.
var ErrNoSuchEvent = errors.New("no such event in the outbox")

// Republication is a request to publish again, and what has become of it.
type Republication struct {
	ID          int64      `db:"id" json:"id"`
	Since       *time.Time `db:"since" json:"since,omitempty"`
	Events      *int64     `db:"events" json:"events,omitempty"` // how many were asked for by their ids
	Published   int64      `db:"published" json:"published"`
	Refused     int64      `db:"refused" json:"refused"`
	Reason      string     `db:"reason" json:"reason,omitempty"` // of the last refusal
	RequestedAt time.Time  `db:"requested_at" json:"requested_at"`
	DoneAt      *time.Time `db:"done_at" json:"done_at,omitempty"`
}

// RepublishIDs asks the leading relay to publish these events again, at most 1000. It returns the id
// of the request, or ErrNoSuchEvent with the first one that is missing. What was held for ever is tried
// once more, as a held event: this is for a person who has mended the cause.
func (o *Outbox) RepublishIDs(ctx context.Context, ids ...string) (request int64, err error) {
	if len(ids) == 0 || len(ids) > maxRepublishIDs {
		return 0, fmt.Errorf("republish: %d events, want 1 to %d", len(ids), maxRepublishIDs)
	}
	err = o.request(ctx, func(tx *sqlx.Tx) error {
		var found []struct {
			ID  string `db:"id"`
			Seq int64  `db:"seq"`
		}
		if err := tx.SelectContext(ctx, &found, `SELECT id::text, seq FROM outbox WHERE id = ANY($1)`, pq.StringArray(ids)); err != nil {
			return err
		}
		var seqs pq.Int64Array
		have := map[string]bool{}
		for _, f := range found {
			seqs, have[f.ID] = append(seqs, f.Seq), true
		}
		for _, id := range ids {
			if !have[strings.ToLower(id)] {
				return fmt.Errorf("%w: %s", ErrNoSuchEvent, id)
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE outbox_held SET due = now() WHERE seq = ANY($1) AND due = 'infinity' AND kind <> 'behind'`, seqs); err != nil {
			return err
		}
		return tx.GetContext(ctx, &request, `INSERT INTO outbox_republish (seqs, last_seq) VALUES ($1, $2) RETURNING id`, seqs, slices.Max(seqs))
	})
	return request, err
}

// RepublishSince asks the leading relay to publish again all that was said since a time by the
// database's clock. It returns the id of the request.
func (o *Outbox) RepublishSince(ctx context.Context, since time.Time) (request int64, err error) {
	err = o.request(ctx, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &request, `INSERT INTO outbox_republish (since, last_seq, reached)
			SELECT $1, coalesce(max(seq), 0), coalesce(min(seq) - 1, 0) FROM outbox WHERE created_at >= $1 RETURNING id`, since)
	})
	return request, err
}

func (o *Outbox) request(ctx context.Context, insert func(tx *sqlx.Tx) error) error {
	err := postgres.InTx(ctx, o.db, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = '`+republishSearch+`'`); err != nil {
			return err
		}
		return insert(tx)
	})
	return wrap("request republication", err)
}

// Republications are the last hundred requests, the newest first.
func (o *Outbox) Republications(ctx context.Context) ([]Republication, error) {
	list := []Republication{}
	err := o.db.SelectContext(ctx, &list, `SELECT id, since, cardinality(seqs)::bigint AS events, published, refused, reason, requested_at, done_at
		FROM outbox_republish ORDER BY id DESC LIMIT $1`, maxRepublications)
	return list, wrap("list republications", err)
}

// again is an open request.
type again struct {
	ID      int64         `db:"id"`
	Seqs    pq.Int64Array `db:"seqs"`
	Since   *time.Time    `db:"since"`
	LastSeq int64         `db:"last_seq"`
	Reached int64         `db:"reached"`
}

// republish publishes the next batch of the oldest open request, when its time has come. Rows that
// the relay has not settled, or that are held, are on their way in any case.
func (p *pump) republish(ctx context.Context) error {
	if time.Now().Before(p.republishAt) || p.publisher.Blocked() || p.stuck() || p.careful > 0 {
		return nil
	}
	p.republishAt = time.Now().Add(republishIdle)
	var open []again
	err := p.conn.SelectContext(ctx, &open, `SELECT id, seqs, since, last_seq, reached FROM outbox_republish WHERE done_at IS NULL ORDER BY id LIMIT 1`)
	if err != nil || len(open) == 0 {
		return wrap("look for republications", err)
	}
	p.republishAt = time.Now().Add(republishInterval)
	request := open[0]
	seqs, err := p.nextAgain(ctx, request)
	if err != nil {
		return err
	}
	if len(seqs) == 0 {
		return p.reach(ctx, request, nil, true)
	}
	rows, err := p.rows(ctx, seqs)
	if err != nil {
		return err
	}
	p.relay.lessons.judge(rows)
	request.Reached = slices.Max(seqs)
	var unfit []outcome
	for _, r := range rows {
		if r.fault != nil {
			unfit = append(unfit, outcome{rabbit.Unsendable, r.fault.Error()})
		}
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return r.fault != nil })
	var outcomes []outcome
	pendings, err := p.publisher.Publish(p.messages(rows))
	if err == nil {
		if outcomes, err = p.await(ctx, pendings); err != nil {
			return err
		}
		if len(outcomes) == len(rows) && (len(rows) == 0 || outcomes[len(rows)-1].kind != rabbit.Unknown) {
			return p.reach(ctx, request, append(outcomes, unfit...), false)
		}
		err = p.unknownFate()
	}
	// With the next session the batch is published again; when one of its rows is to blame, one at a time
	// from then on, until it is found.
	if p.relay.lessons.learn(err) || !complaint(rabbit.ServerCode(err)) || len(p.flying) > 0 {
		return err
	}
	if len(seqs) > 1 {
		p.relay.wary = true
		return err
	}
	return errors.Join(err, p.reach(ctx, request, []outcome{{rabbit.Unsendable, err.Error()}}, false))
}

// nextAgain returns the next rows of a request.
func (p *pump) nextAgain(ctx context.Context, request again) (seqs []int64, err error) {
	size := republishBatch
	if p.relay.wary {
		size = 1
	}
	// Settled is what the cursor has passed, in the window that is still open as well.
	const settled = ` AND (pg_visible_in_snapshot(o.txid, $3::pg_snapshot) OR pg_visible_in_snapshot(o.txid, $6::pg_snapshot) AND o.seq <= $7) AND NOT EXISTS (SELECT FROM outbox_held AS h WHERE h.seq = o.seq)
		ORDER BY o.seq LIMIT $4`
	if request.Since == nil {
		err = p.conn.SelectContext(ctx, &seqs, `SELECT o.seq FROM outbox AS o JOIN unnest($1::bigint[]) AS s (seq) ON s.seq = o.seq
			WHERE o.seq > $2 AND $5::text IS NULL`+settled, request.Seqs, request.Reached, string(p.cursor.A), size, nil, string(p.cursor.B), p.cursor.LastSeq)
	} else {
		err = p.conn.SelectContext(ctx, &seqs, `SELECT o.seq FROM outbox AS o WHERE o.seq > $1 AND o.seq <= $2 AND o.created_at >= $5`+settled,
			request.Reached, request.LastSeq, string(p.cursor.A), size, request.Since, string(p.cursor.B), p.cursor.LastSeq)
	}
	return seqs, wrap("find rows to republish", err)
}

// reach writes how far a request has come.
func (p *pump) reach(ctx context.Context, request again, outcomes []outcome, done bool) error {
	var published, refused int
	var reason string
	for _, o := range outcomes {
		if o.kind == rabbit.Confirmed {
			published++
		} else {
			refused, reason = refused+1, o.reason
		}
	}
	if done {
		p.relay.wary = false
	}
	err := p.lead.Tx(ctx, func(tx postgres.Fenced) error {
		_, err := tx.Tx().ExecContext(ctx, `UPDATE outbox_republish SET reached = $2, published = published + $3, refused = refused + $4,
			reason = coalesce(nullif($5, ''), reason), done_at = CASE WHEN $6 THEN now() END
			WHERE id = $1`, request.ID, request.Reached, published, refused, reason, done)
		return err
	})
	return wrap("note republication", err)
}
