// Package outbox gets events from a database transaction to the broker. Append writes them in the
// transaction of the business change; the Relay publishes them afterwards, with confirms.
//
// It promises that an event is published if and only if its transaction committed, at least once,
// always with the same id; that no event is skipped when transactions commit in another order than
// they began; and that the events of one aggregate are published first in the order in which they
// were appended, as long as nothing fails. It does not promise that order under faults, and nothing
// that is built on it may depend on it.
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
	"github.com/quadrille-go/quadrille/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are those of the line "outbox".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// Outbox appends events to the outbox of one service. It is safe for concurrent use.
type Outbox struct {
	db         *sqlx.DB
	statements *postgres.Statements
	nudge      chan struct{} // room for one: many nudges are as good as one
}

// New returns the outbox of a database.
func New(db *sqlx.DB) *Outbox {
	return &Outbox{db: db, statements: postgres.NewStatements(db), nudge: make(chan struct{}, 1)}
}

const appendSQL = `
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::json[], $6::json[])`

// Append writes events in tx, in one statement and in their order. It refuses events that do not
// encode, or that are larger than events.MaxSize, before it touches the database.
//
// It must come after the rows of the aggregate were locked, so that the order of the outbox is that
// of the changes. Somebody has to nudge the relay after the commit, as Tx does; otherwise it finds
// the events at its next poll.
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

// aggregateType is the noun of an event type: "order" of "order.placed".
func aggregateType(eventType string) string {
	noun, _, _ := strings.Cut(eventType, ".")
	return noun
}

// Tx runs f in a transaction and nudges the relay when it has committed. The error is that of f or
// of the commit; see postgres.InTx.
func (o *Outbox) Tx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	if err := postgres.InTx(ctx, o.db, f); err != nil {
		return err
	}
	o.Nudge()
	return nil
}

// Nudge tells the relay that there may be something to publish. It only hurries it: the relay polls
// as well. It never blocks.
func (o *Outbox) Nudge() {
	select {
	case o.nudge <- struct{}{}:
	default:
	}
}
