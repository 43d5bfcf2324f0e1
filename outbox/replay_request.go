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

	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of a replay. Its rate is one batch in each interval, which is 1000 events a second.
const (
	replayBatch    = 100
	replayScan     = 5000 // rows of the outbox that are read for one batch
	replayInterval = 100 * time.Millisecond
	replayIdle     = 200 * time.Millisecond // between two looks for a request
	// replaySearchTimeout bounds the search for the requested rows, which may read the whole history.
	replaySearchTimeout = "5min"
	maxReplayIDs        = 1000
)

// MaxReplays is how many requests are in one page of their list.
const MaxReplays = 100

// ErrNoSuchEvent says that an event is not in the outbox: this service never appended it, or the
// retention has deleted it.
var ErrNoSuchEvent = errors.New("no such event in the outbox")

// Replay is a request to publish a part of the history again, and its progress.
type Replay struct {
	ID    int64      `db:"id" json:"id"`
	Since *time.Time `db:"since" json:"since,omitempty"`
	// Events is the number of events that were requested by their ids.
	Events    *int64 `db:"events" json:"events,omitempty"`
	Published int64  `db:"published" json:"published"`
	// Refused counts events that the broker did not confirm, or that are no longer in the outbox.
	Refused int64 `db:"refused" json:"refused"`
	// Held counts events that were not published because they are held.
	Held int64 `db:"held" json:"held"`
	// Reason is that of the last event that was refused or is held.
	Reason      string    `db:"reason" json:"reason,omitempty"`
	RequestedAt time.Time `db:"requested_at" json:"requested_at"`
	// DoneAt is set when the broker has confirmed all events.
	DoneAt *time.Time `db:"done_at" json:"done_at,omitempty"`
	// EndedAt is set when no events are left to publish, whether all were confirmed or not.
	EndedAt *time.Time `db:"ended_at" json:"ended_at,omitempty"`
}

// ReplayIDs requests that the leader publishes these events again, at most 1000. It returns the id
// of the request, or ErrNoSuchEvent with the id of the first missing event. Held events among them,
// also quarantined ones, are due now, for an operator who has repaired the cause.
func (o *Outbox) ReplayIDs(ctx context.Context, ids ...string) (request int64, err error) {
	if len(ids) == 0 || len(ids) > maxReplayIDs {
		return 0, fmt.Errorf("replay: %d events, want 1 to %d", len(ids), maxReplayIDs)
	}
	err = o.request(ctx, func(tx *sqlx.Tx) error {
		var found []struct {
			ID  string `db:"id"`
			Seq int64  `db:"seq"`
		}
		if err := tx.SelectContext(ctx, &found, `SELECT id::text, seq FROM outbox WHERE id = ANY($1)`,
			pq.StringArray(ids)); err != nil {
			return err
		}
		var seqs pq.Int64Array
		present := map[string]bool{}
		for _, f := range found {
			seqs, present[f.ID] = append(seqs, f.Seq), true
		}
		for _, id := range ids {
			if !present[strings.ToLower(id)] {
				return fmt.Errorf("%w: %s", ErrNoSuchEvent, id)
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE outbox_held SET due = now() WHERE seq = ANY($1)
			AND due > now() AND kind <> 'behind'`, seqs); err != nil {
			return err
		}
		return tx.GetContext(ctx, &request, `INSERT INTO outbox_replay (seqs, last_seq) VALUES ($1, $2)
			RETURNING id`, seqs, slices.Max(seqs))
	})
	return request, err
}

// ReplaySince requests that the leader publishes all events again that were appended since a time,
// by the database's clock. It returns the id of the request.
func (o *Outbox) ReplaySince(ctx context.Context, since time.Time) (request int64, err error) {
	err = o.request(ctx, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &request, `INSERT INTO outbox_replay (since, last_seq, reached)
			SELECT $1, coalesce(max(seq), 0), coalesce(min(seq) - 1, 0) FROM outbox WHERE created_at >= $1
				RETURNING id`, since)
	})
	return request, err
}

func (o *Outbox) request(ctx context.Context, insert func(tx *sqlx.Tx) error) error {
	err := pg.InTx(ctx, o.db, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = '`+replaySearchTimeout+
			`'`); err != nil {
			return err
		}
		return insert(tx)
	})
	return wrap("request replay", err)
}

// Replays returns a page of the requests, the newest first, and the id after which the next page
// begins, 0 when there is none. The first page is after 0. The limit is 1 to MaxReplays.
func (o *Outbox) Replays(ctx context.Context, after int64, limit int) (list []Replay, next int64,
	err error) {
	if limit < 1 || limit > MaxReplays {
		return nil, 0, fmt.Errorf("list replays: limit %d, want 1 to %d", limit, MaxReplays)
	}
	list = []Replay{}
	err = o.db.SelectContext(ctx, &list, `SELECT id, since, cardinality(seqs)::bigint AS events,
		published, refused, held, reason, requested_at, done_at, ended_at
		FROM outbox_replay WHERE $1 = 0 OR id < $1 ORDER BY id DESC LIMIT $2`, after, limit+1)
	if err != nil {
		return nil, 0, wrap("list replays", err)
	}
	if len(list) > limit {
		list = list[:limit]
		next = list[limit-1].ID
	}
	return list, next, nil
}
