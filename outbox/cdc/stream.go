package cdc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/quadrille-go/quadrille/outbox"
)

// The bounds of a stream.
const (
	maxRows = 250 // that Next returns at once
	// transactions, or parts of large ones, that are read ahead
	readAhead      = 256
	statusInterval = 100 * time.Millisecond // between two confirmations
	replyInterval  = time.Second            // between two questions how far the server is
)

// stream reads changes ahead of Next, in a goroutine that alone uses the connection.
type stream struct {
	conn      *pgconn.PgConn
	changes   chan change
	confirmed atomic.Uint64
	stop      context.CancelFunc
	running   sync.WaitGroup
	err       error // set before found is closed

	remainder *change // what did not fit into the last Next
	position  uint64  // of the last Next

	// Of the goroutine:
	columns       map[uint32][]string
	rows          []outbox.Row // of the transaction that is being read
	reported      uint64
	reportedAt    time.Time // when the server was last told
	requestedAt   time.Time
	lastMessageAt time.Time // when the server was last heard of, or could not be
	queued        uint64    // the last place that was put into found
}

// change is a transaction, or a part of a large one; place is 0 until its end.
type change struct {
	rows     []outbox.Row
	position uint64
}

func newStream(conn *pgconn.PgConn) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{conn: conn, changes: make(chan change, readAhead), stop: cancel,
		columns: map[uint32][]string{}, lastMessageAt: time.Now()}
	s.running.Go(func() {
		s.err = s.read(ctx)
		close(s.changes)
	})
	return s
}

// Confirm lets the server forget its log up to a place, a moment later.
func (s *stream) Confirm(position uint64) { s.confirmed.Store(position) }

// Close ends the session.
func (s *stream) Close() {
	s.stop()
	s.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// Next returns what has come, at most maxRows.
func (s *stream) Next(ctx context.Context, wait time.Duration) (rows []outbox.Row, position uint64,
	err error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for len(rows) < maxRows {
		c := s.remainder
		s.remainder = nil
		if c == nil {
			var more, ok bool
			var next change
			if next, more, ok = s.nextChange(ctx, timer.C, len(rows) == 0); !ok {
				break
			}
			if !more {
				if len(rows) > 0 {
					break // first what has come before
				}
				return nil, s.position, fmt.Errorf("stream: %w", s.err)
			}
			c = &next
		}
		if free := maxRows - len(rows); len(c.rows) > free {
			rows = append(rows, c.rows[:free]...)
			s.remainder = &change{c.rows[free:], c.position}
			break
		}
		rows = append(rows, c.rows...)
		if c.position > 0 {
			s.position = c.position
		}
		if len(c.rows) == 0 && len(rows) == 0 {
			break // news of a place alone
		}
	}
	return rows, s.position, ctx.Err()
}

// nextChange returns the next change; more is false when the stream has ended, ok when nothing has come.
func (s *stream) nextChange(ctx context.Context, timeout <-chan time.Time, mayWait bool) (c change, more,
	ok bool) {
	select {
	case c, more = <-s.changes:
		return c, more, true
	default:
	}
	if !mayWait {
		return c, false, false
	}
	select {
	case c, more = <-s.changes:
		return c, more, true
	case <-timeout:
	case <-ctx.Done():
	}
	return c, false, false
}

// read receives messages until ctx is done or the session ends.
func (s *stream) read(ctx context.Context) error {
	for {
		if err := s.sendStatus(ctx); err != nil {
			return err
		}
		message, err := s.receiveMessage(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && pgconn.Timeout(err):
			if silent := time.Since(s.lastMessageAt); silent > senderTimeout { // it is asked every second
				return fmt.Errorf("the server has not been heard of for %s", silent)
			}
			continue
		case err != nil:
			return err
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			if err := s.handleCopyData(ctx, m.Data); err != nil {
				return err
			}
			s.lastMessageAt = time.Now() // after the wait for room
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyDone:
			return errors.New("the server has ended the stream")
		}
	}
}

// receiveMessage waits for one, no longer than until there may be something to tell.
func (s *stream) receiveMessage(ctx context.Context) (pgproto3.BackendMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, statusInterval)
	defer cancel()
	return s.conn.ReceiveMessage(ctx)
}

// sendStatus sends the server what is confirmed, and asks it from time to time how far it is.
func (s *stream) sendStatus(ctx context.Context) error {
	now := time.Now()
	confirmed := s.confirmed.Load()
	requestReply := now.Sub(s.requestedAt) >= replyInterval
	if !requestReply && (confirmed == s.reported || now.Sub(s.reportedAt) < statusInterval) {
		return nil
	}
	s.reportedAt, s.reported = now, confirmed
	if requestReply {
		s.requestedAt = now
	}
	position := pglogrepl.LSN(confirmed)
	return pglogrepl.SendStandbyStatusUpdate(ctx, s.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: position, WALFlushPosition: position, WALApplyPosition: position, ReplyRequested: requestReply,
	})
}

func (s *stream) handleCopyData(ctx context.Context, data []byte) error {
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return err
		}
		if k.ReplyRequested {
			s.reported = 0 // the next tell answers
			s.reportedAt = time.Time{}
		}
		// Between transactions this is how far the server has come, whatever other databases write.
		if at := uint64(k.ServerWALEnd); len(s.rows) == 0 && at > s.queued {
			s.queued = at
			return s.enqueue(ctx, change{position: at})
		}
	case pglogrepl.XLogDataByteID:
		x, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return err
		}
		return s.decode(ctx, x.WALData)
	}
	return nil
}

func (s *stream) decode(ctx context.Context, data []byte) error {
	message, err := pglogrepl.Parse(data)
	if err != nil {
		return fmt.Errorf("decode change: %w", err)
	}
	switch m := message.(type) {
	case *pglogrepl.RelationMessage:
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
		if s.rows = append(s.rows, r); len(s.rows) == maxRows { // a large transaction comes in parts
			return s.flush(ctx, 0)
		}
	case *pglogrepl.CommitMessage:
		s.queued = uint64(m.TransactionEndLSN)
		return s.flush(ctx, s.queued)
	}
	return nil
}

func (s *stream) flush(ctx context.Context, position uint64) error {
	c := change{s.rows, position}
	s.rows = nil
	return s.enqueue(ctx, c)
}

// enqueue waits for room, and keeps the session alive meanwhile.
func (s *stream) enqueue(ctx context.Context, c change) error {
	for {
		timer := time.NewTimer(replyInterval)
		select {
		case s.changes <- c:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
			if err := s.sendStatus(ctx); err != nil {
				return err
			}
		}
	}
}

func rowOf(columns []string, tuple *pglogrepl.TupleData) (r outbox.Row, err error) {
	if tuple == nil || len(tuple.Columns) != len(columns) {
		return r, errors.New("decode change: a row without the columns of its table")
	}
	for i, name := range columns {
		text := string(tuple.Columns[i].Data)
		switch name {
		case "seq":
			if r.Seq, err = strconv.ParseInt(text, 10, 64); err != nil {
				return r, fmt.Errorf("decode change: seq %q", text)
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
