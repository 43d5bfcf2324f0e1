package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/postgres"
)

// ErrNoCheckpoint says that a stream cannot go on where it was: there is no such place, or the
// server has given it up.
var ErrNoCheckpoint = errors.New("the stream has no place to go on from")

// Source finds committed rows in another way than through the window of two snapshots: as a stream
// of changes. Package outbox/cdc has one. The window stays what the relay falls back to.
type Source interface {
	// Begin makes a new place, in place of an old one, and returns the snapshot that it stands at: the
	// stream has exactly the rows that are not visible in it. It may wait for running transactions.
	Begin(ctx context.Context) (Stream, postgres.Snapshot, error)
	// Resume goes on at the place that was confirmed last, or returns ErrNoCheckpoint.
	Resume(ctx context.Context) (Stream, error)
	// Drop gives the place up, so that the server need not keep anything for it.
	Drop(ctx context.Context) error
	// State tells how the place fares.
	State(ctx context.Context) (SlotState, error)
}

// Stream is a session of a Source. It is not for concurrent use.
type Stream interface {
	// Next returns the next rows, whole transactions in the order of their commits where they are not
	// larger than a batch, and the place up to which everything has been returned with them. After the
	// wait it returns none.
	Next(ctx context.Context, wait time.Duration) (rows []Row, place uint64, err error)
	// Confirm says that all up to a place is settled for good. It may be forgotten in a crash.
	Confirm(place uint64)
	Close()
}

// Row is a row of the outbox as a Source finds it: the text of its columns.
type Row struct {
	Seq                                     int64
	ID, AggregateID, Type, Payload, Headers string
}

// SlotState is how a place fares.
type SlotState struct {
	Name string `json:"name"`
	// reserved, extended, unreserved or lost, as in pg_replication_slots; empty: there is none
	State    string `json:"state"`
	Active   bool   `json:"active"`
	LagBytes int64  `json:"lag_bytes"` // of the log, that the server keeps for it
	Fault    error  `json:"-"`         // why the stream must be left, although it goes on
}

// row turns what was found into what is published.
func (r Row) row(at int64) row {
	found := row{seq: r.Seq, number: at, record: events.Record{ID: r.ID, Subject: r.AggregateID,
		Type: r.Type, Data: []byte(r.Payload)}}
	found.fault = found.record.SetHeaders([]byte(r.Headers))
	return found
}

// The ways in which the leader finds what was committed.
const (
	FromWindow = "window"
	FromStream = "stream"
)

// UseSource says how the leader is to find what was committed, from the next second on: FromWindow
// or FromStream. A relay without a Source, or one whose stream has failed, uses the window.
func (o *Outbox) UseSource(ctx context.Context, source string) error {
	if source != FromWindow && source != FromStream {
		return fmt.Errorf("use source %.32q: want %s or %s", source, FromWindow, FromStream)
	}
	// That a cursor was copied here by a restore is known by its xmin; it must stay known.
	done, err := o.db.ExecContext(ctx, `UPDATE outbox_cursor AS k SET source = $1,
		txid = pg_current_xact_id() WHERE `+ownSQL, source)
	if err != nil {
		return wrap("use source", err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return errors.New("use source: the database was restored, and no leader has made its outbox " +
			"fit yet: try again in a moment")
	}
	return nil
}

// SourceState is what is wanted of the leader, and what it does.
type SourceState struct {
	Wanted string    `db:"wanted" json:"wanted"`
	Source string    `db:"source" json:"source"` // in use
	Token  int64     `db:"token" json:"token"`   // of the leader
	Since  time.Time `db:"since" json:"since"`   // it leads; zero: nobody has led
	// its service, host and process; empty: none has told of itself
	Leader string `db:"leader" json:"leader"`
}

// SourceInUse tells it.
func (o *Outbox) SourceInUse(ctx context.Context) (u SourceState, err error) {
	err = o.db.GetContext(ctx, &u, `SELECT k.source AS wanted, CASE WHEN k.streamed THEN 'stream'
		ELSE 'window' END AS source,
		coalesce(l.token, 0) AS token, coalesce(l.since, '0001-01-01 00:00:00+00') AS since,
		coalesce((SELECT r.name || ' on ' || r.host || ', process ' || r.pid FROM outbox_relays AS r
			WHERE r.token > 0 AND r.token = l.token LIMIT 1), '') AS leader
		FROM outbox_cursor AS k LEFT JOIN leaders AS l ON l.name = 'outbox'`)
	return u, wrap("read source", err)
}
