// Package outbox publishes events that were written in a database transaction. Append writes them
// in the transaction of the business change; the Relay publishes them after the commit and waits
// for the broker's confirms.
//
// It promises that an event is published if and only if its transaction committed: at least once,
// and always with the same id. No event is skipped when transactions commit in another order than
// they began. As long as nothing fails, the events of one aggregate are published in the order in
// which they were appended. Under faults that order is not promised, and no consumer may depend on
// it.
//
// The relay reads the outbox in windows. A window contains the rows that are visible in one
// snapshot of the database and not in the one before, so it is exact in every order of sequence
// numbers, transaction ids and commits. A cursor that only remembers the highest number would skip
// a row that commits late, and a relay that waits for running transactions would stall behind a
// long one.
package outbox

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the migrations of the outbox, for pg.Migrate under the name "outbox".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // it fails only for an invalid name
	return files
}

// Outbox appends events to the outbox of one service. It is safe for concurrent use.
type Outbox struct {
	db         *sqlx.DB
	statements *pg.Statements
	nudge      chan struct{} // holds one nudge; the relay reads everything at each of them
}

// New returns the outbox of a database.
func New(db *sqlx.DB) *Outbox {
	return &Outbox{db: db, statements: pg.NewStatements(db), nudge: make(chan struct{}, 1)}
}

const appendSQL = `
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::json[], $6::json[])`

// Append writes events in tx with one statement, in the given order. It refuses events that do not
// encode or that are larger than events.MaxSize before it uses the database, so that tx stays
// usable.
//
// The caller must have locked the rows of the aggregate in tx: otherwise two transactions may
// append in another order than they change the aggregate. After the commit the caller should nudge
// the relay, as Tx does; without a nudge the relay finds the events at its next poll.
func (o *Outbox) Append(ctx context.Context, tx *sqlx.Tx, published ...events.Event) error {
	if len(published) == 0 {
		return nil
	}
	var id, kind, aggregate, eventType, payload, header pq.StringArray
	for _, e := range published {
		r, err := e.Record()
		if err != nil {
			return fmt.Errorf("append to outbox: %w", err)
		}
		h, err := r.Headers()
		if err != nil {
			return fmt.Errorf("append to outbox: %w", err)
		}
		id, aggregate, eventType = append(id, r.ID), append(aggregate, r.Subject),
			append(eventType, r.Type)
		kind = append(kind, aggregateType(r.Type))
		payload, header = append(payload, string(r.Data)), append(header, string(h))
	}
	insert, err := o.statements.In(ctx, tx, appendSQL)
	if err != nil {
		return fmt.Errorf("append to outbox: %w", err)
	}
	if _, err := insert.ExecContext(ctx, id, kind, aggregate, eventType, payload, header); err != nil {
		return fmt.Errorf("append to outbox: %w", err)
	}
	return nil
}

// aggregateType returns the noun of an event type, which is "order" for "order.placed".
func aggregateType(eventType string) string {
	noun, _, _ := strings.Cut(eventType, ".")
	return noun
}

// Tx runs f in a transaction and nudges the relay after the commit. It returns the error of f or of
// the commit; see pg.InTx.
func (o *Outbox) Tx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	if err := pg.InTx(ctx, o.db, f); err != nil {
		return err
	}
	o.Nudge()
	return nil
}

// Nudge makes the relay look for new events now instead of at its next poll. It never blocks. A
// lost nudge delays an event by one poll interval at most.
func (o *Outbox) Nudge() {
	select {
	case o.nudge <- struct{}{}:
	default:
	}
}
