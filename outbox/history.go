package outbox

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
)

// maxHistory bounds how many events of one aggregate are read.
const maxHistory = 1000

// History returns what the service has said about one aggregate, oldest first, at most 1000 events.
func (o *Outbox) History(ctx context.Context, aggregate string) ([]events.Record, error) {
	rows, err := o.db.QueryxContext(ctx, rowColumns+` WHERE aggregateid = $1 ORDER BY seq LIMIT $2`,
		aggregate, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("read story of %s: %w", aggregate, err)
	}
	found, err := scanRows(rows)
	if err != nil {
		return nil, fmt.Errorf("read story of %s: %w", aggregate, err)
	}
	history := make([]events.Record, len(found))
	for i, r := range found {
		if r.fault != nil {
			return nil, fmt.Errorf("read story of %s: %w", aggregate, r.fault)
		}
		history[i] = r.record
	}
	return history, nil
}

// row is a row of the outbox as the relay publishes it.
type row struct {
	seq    int64
	number int64 // its place in what is relayed: its seq in a window, its number in a stream
	record events.Record
	fault  error // it cannot be published: somebody else has written it
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
