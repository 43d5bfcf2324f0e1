package outbox

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
)

// maxHistory bounds the events of one aggregate that History reads.
const maxHistory = 1000

// History returns the events that the service has appended about one aggregate, the oldest first.
// It returns the first 1000.
func (o *Outbox) History(ctx context.Context, aggregate string) ([]events.Record, error) {
	rows, err := o.db.QueryxContext(ctx, rowColumns+` WHERE aggregateid = $1 ORDER BY seq LIMIT $2`,
		aggregate, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("read history of %s: %w", aggregate, err)
	}
	found, err := scanRows(rows)
	if err != nil {
		return nil, fmt.Errorf("read history of %s: %w", aggregate, err)
	}
	history := make([]events.Record, len(found))
	for i, r := range found {
		if r.fault != nil {
			return nil, fmt.Errorf("read history of %s: %w", aggregate, r.fault)
		}
		history[i] = r.record
	}
	return history, nil
}

// Find returns an event that the service has appended, or ErrNoSuchEvent. It reads the whole
// history if it must, which is for a person who asks about one event.
func (o *Outbox) Find(ctx context.Context, id string) (events.Record, error) {
	rows, err := o.db.QueryxContext(ctx, rowColumns+` WHERE id = $1 LIMIT 1`, id)
	if err != nil {
		return events.Record{}, fmt.Errorf("find event %s: %w", id, err)
	}
	found, err := scanRows(rows)
	if err == nil && len(found) == 0 {
		err = ErrNoSuchEvent
	}
	if err == nil {
		err = found[0].fault
	}
	if err != nil {
		return events.Record{}, fmt.Errorf("find event %s: %w", id, err)
	}
	return found[0].record, nil
}

// row is a row of the outbox as the relay publishes it.
type row struct {
	seq int64
	// number is what the cursor's LastSeq counts: the seq in a window, and in a stream a running
	// number, because a stream delivers rows in the order of their commits.
	number int64
	record events.Record
	fault  error // why it cannot be published, such as headers that Append did not write
}

const rowColumns = `SELECT seq, id::text, aggregateid, type, payload::text, headers::text
	FROM outbox`

func scanRows(rows *sqlx.Rows) ([]row, error) {
	defer func() { _ = rows.Close() }()
	var found []row
	for rows.Next() {
		var r row
		var head []byte
		if err := rows.Scan(&r.seq, &r.record.ID, &r.record.Subject, &r.record.Type, &r.record.Data,
			&head); err != nil {
			return nil, err
		}
		r.fault = r.record.SetHeaders(head)
		r.number = r.seq
		found = append(found, r)
	}
	return found, rows.Err()
}
