package cdc

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"

	"github.com/quadrille-go/quadrille/outbox"
)

// decode reads one message of pgoutput. A relation message precedes the first row of its table, and
// a commit message follows the last row of its transaction.
func (s *stream) decode(ctx context.Context, data []byte) error {
	message, err := pglogrepl.Parse(data)
	if err != nil {
		return fmt.Errorf("decode change: %w", err)
	}
	switch m := message.(type) {
	case *pglogrepl.RelationMessage: // it comes again after the table was altered
		names := make([]string, len(m.Columns))
		for i, c := range m.Columns {
			names[i] = c.Name
		}
		s.columns[m.RelationID] = names
	case *pglogrepl.InsertMessage:
		r, err := rowOf(s.columns[m.RelationID], m.Tuple)
		if err != nil {
			return err
		}
		if s.rows = append(s.rows, r); len(s.rows) == maxRows {
			// The transaction may be too large for the memory. The part has no position, so that after
			// a crash the server sends the whole transaction again.
			return s.flush(ctx, 0)
		}
	case *pglogrepl.CommitMessage: // also of transactions without rows of the outbox
		s.queued = uint64(m.TransactionEndLSN)
		return s.flush(ctx, s.queued)
	}
	return nil
}

// rowOf reads the columns that the relay publishes, by their names: a later release may add others.
// All of them are NOT NULL, and pgoutput sends every value of an insert as text.
func rowOf(columns []string, tuple *pglogrepl.TupleData) (r outbox.Row, err error) {
	if tuple == nil || len(tuple.Columns) != len(columns) {
		return r, errors.New("decode change: a row does not have the columns of its table")
	}
	for i, name := range columns {
		text := string(tuple.Columns[i].Data)
		switch name {
		case "seq":
			if r.Seq, err = strconv.ParseInt(text, 10, 64); err != nil {
				return r, fmt.Errorf("decode change: the seq %q is not a number", text)
			}
		case "id":
			r.ID = text
		case "aggregateid":
			r.AggregateID = text
		case "type":
			r.Type = text
		case "payload":
			r.Payload = text
		case "headers":
			r.Headers = text
		}
	}
	return r, nil
}
