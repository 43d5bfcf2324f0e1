package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// ErrNoCheckpoint says that a stream cannot resume: there is no slot, or the server has removed the
// part of its log that the slot needs.
var ErrNoCheckpoint = errors.New("the stream has no checkpoint to resume from")

// Source delivers committed rows as a stream of changes, in place of the window of two snapshots.
// The server keeps the stream's position in a slot. Package outbox/cdc has a Source. Whenever the
// stream fails, the relay falls back to the window.
type Source interface {
	// Begin creates a new slot, which replaces an old one, and returns its snapshot: the stream
	// delivers exactly the rows that are not visible in that snapshot. Begin may wait for running
	// transactions.
	Begin(ctx context.Context) (Stream, pg.Snapshot, error)
	// Resume continues after the last confirmed position, or returns ErrNoCheckpoint.
	Resume(ctx context.Context) (Stream, error)
	// Drop removes the slot, so that the server need not keep its log for it.
	Drop(ctx context.Context) error
	// State returns the present state of the slot.
	State(ctx context.Context) (SlotState, error)
}

// Stream is a session of a Source. It is not safe for concurrent use.
type Stream interface {
	// Next returns the next rows in the order of their commits, and the position up to which all rows
	// have been returned. A transaction that is larger than a batch comes in several parts. When
	// nothing has come after the wait, Next returns no rows.
	Next(ctx context.Context, wait time.Duration) (rows []Row, position uint64, err error)
	// Confirm says that all rows up to a position are settled and need not be delivered again. After a
	// crash, the stream may go back to an earlier confirmed position.
	Confirm(position uint64)
	Close()
}

// Row contains the columns of an outbox row as text.
type Row struct {
	Seq                                     int64
	ID, AggregateID, Type, Payload, Headers string
}

// SlotState is the state of a stream's slot.
type SlotState struct {
	Name string `json:"name"`
	// State is reserved, extended, unreserved or lost, as in pg_replication_slots. Empty: there is no
	// slot.
	State    string `json:"state"`
	Active   bool   `json:"active"`    // a session streams from the slot
	LagBytes int64  `json:"lag_bytes"` // of the write-ahead log that the server keeps for the slot
	// Fault is a reason for which the relay must leave the stream, although it works.
	Fault error `json:"-"`
}

// row converts a streamed row into the form in which it is published.
func (r Row) row(number int64) row {
	converted := row{seq: r.Seq, number: number, record: events.Record{ID: r.ID,
		Subject: r.AggregateID, Type: r.Type, Data: []byte(r.Payload)}}
	converted.fault = converted.record.SetHeaders([]byte(r.Headers))
	return converted
}

// SourceName names a source from which the leader may read committed rows.
type SourceName string

// The sources from which the leader may read committed rows.
const (
	FromWindow SourceName = "window"
	FromStream SourceName = "stream"
)

// UseSource sets the source from which the leader reads committed rows, FromWindow or FromStream.
// The leader checks the setting once a second. A relay without a Source, or one whose stream has
// failed, uses the window in any case.
func (o *Outbox) UseSource(ctx context.Context, source SourceName) error {
	if source != FromWindow && source != FromStream {
		return fmt.Errorf("use source %.32q: want %s or %s", source, FromWindow, FromStream)
	}
	// A restored cursor is known by its xmin (ownSQL). An update would give it a new xmin and hide the
	// restore, so UseSource leaves a cursor alone that was not written here.
	done, err := o.db.ExecContext(ctx, `UPDATE outbox_cursor AS k SET source = $1,
		txid = pg_current_xact_id() WHERE `+ownSQL, source)
	if err != nil {
		return wrap("use source", err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return errors.New("use source: the database was restored, and no leader has rebased its outbox " +
			"cursor yet: try again when a relay runs")
	}
	return nil
}

// SourceState is the source that an operator wants, the source in use, and the leader that uses it.
type SourceState struct {
	Wanted SourceName `db:"wanted" json:"wanted"`
	Source SourceName `db:"source" json:"source"` // in use
	Token  int64      `db:"token" json:"token"`   // of the lead
	Since  time.Time  `db:"since" json:"since"`   // when the lead began; zero: no relay has led yet
	// Leader is the leader's service, host and process. Empty: it has not announced itself yet.
	Leader string `db:"leader" json:"leader"`
}

// SourceInUse returns the wanted source, the source in use and the leader.
func (o *Outbox) SourceInUse(ctx context.Context) (u SourceState, err error) {
	err = o.db.GetContext(ctx, &u, `SELECT k.source AS wanted, CASE WHEN k.streamed THEN 'stream'
		ELSE 'window' END AS source,
		coalesce(l.token, 0) AS token, coalesce(l.since, '0001-01-01 00:00:00+00') AS since,
		coalesce((SELECT r.name || ' on ' || r.host || ', process ' || r.pid FROM outbox_relays AS r
			WHERE r.token > 0 AND r.token = l.token LIMIT 1), '') AS leader
		FROM outbox_cursor AS k LEFT JOIN leaders AS l ON l.name = 'outbox'`)
	return u, wrap("read source", err)
}
