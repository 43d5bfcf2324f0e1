package cdc

import (
	"context"
	"errors"
	"fmt"
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
	maxRows        = 250 // rows that Next returns at once
	readAhead      = 256 // changes that are read ahead of Next
	statusInterval = 100 * time.Millisecond
	replyInterval  = time.Second // between two status updates that request a reply
)

// stream reads changes ahead of Next, on a goroutine that alone uses the connection. The server
// ends a session that does not answer within wal_sender_timeout, and the goroutine answers while
// the relay waits for its broker.
type stream struct {
	conn      *pgconn.PgConn
	changes   chan change
	confirmed atomic.Uint64
	stop      context.CancelFunc
	running   sync.WaitGroup
	err       error // it is set before changes is closed

	// Used by Next:
	remainder *change // the rows that exceeded maxRows in the last call
	position  uint64  // that the last call returned

	// Used by the goroutine:
	columns       map[uint32][]string // of a table, by the id of its relation, in their order
	rows          []outbox.Row        // of the transaction that is being read
	reported      uint64              // the position of the last status update
	reportedAt    time.Time           // the time of the last status update
	requestedAt   time.Time           // the time of the last one that requested a reply
	lastMessageAt time.Time           // the end of the last message's handling
	queued        uint64              // the last position in changes
}

// change is a transaction, or a part of a large one. Its position is 0 unless it ends a
// transaction.
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

// Confirm lets the server remove its log up to a position. The next status update reports it.
func (s *stream) Confirm(position uint64) { s.confirmed.Store(position) }

// Close ends the session. It reports nothing more to the server: what was confirmed since the last
// status update comes again.
func (s *stream) Close() {
	s.stop()
	s.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// Next returns the rows that have arrived, at most maxRows. It waits only while there are none.
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
					break // the next call returns the error
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
			break // the change has a position and no rows
		}
	}
	return rows, s.position, ctx.Err()
}

// nextChange returns the next change. When the stream has ended, more is false; when no change has
// come in time, ok is false.
func (s *stream) nextChange(ctx context.Context, timeout <-chan time.Time,
	mayWait bool) (c change, more, ok bool) {
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

// read receives messages until ctx is done or the session ends. Each wait is short, so that a
// status update is sent in time also while the server has nothing to send.
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
			// The server is requested to reply once in replyInterval.
			if silent := time.Since(s.lastMessageAt); silent > senderTimeout {
				return fmt.Errorf("no message from the server for %s", silent)
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
			s.lastMessageAt = time.Now() // not earlier: handleCopyData may wait for Next
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyDone:
			return errors.New("the server has ended the stream")
		}
	}
}

// receiveMessage waits for a message, at most until the next status update may be due.
func (s *stream) receiveMessage(ctx context.Context) (pgproto3.BackendMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, statusInterval)
	defer cancel()
	return s.conn.ReceiveMessage(ctx)
}

// sendStatus reports the confirmed position to the server, and requests a reply once in
// replyInterval: a reply contains the server's position, and shows that the connection works.
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
		WALWritePosition: position, WALFlushPosition: position, WALApplyPosition: position,
		ReplyRequested: requestReply,
	})
}

func (s *stream) handleCopyData(ctx context.Context, data []byte) error {
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		keepalive, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return err
		}
		if keepalive.ReplyRequested {
			s.reported = 0 // this makes the next sendStatus send an update
			s.reportedAt = time.Time{}
		}
		// Between two transactions, the server has sent everything up to this position. Without
		// it the confirmed position would stand still while only other databases write, and the server
		// would keep its log.
		if end := uint64(keepalive.ServerWALEnd); len(s.rows) == 0 && end > s.queued {
			s.queued = end
			return s.enqueue(ctx, change{position: end})
		}
	case pglogrepl.XLogDataByteID:
		walData, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return err
		}
		return s.decode(ctx, walData.WALData)
	}
	return nil
}

// flush enqueues the rows that are read; position is 0 in the middle of a transaction, which cannot
// be confirmed in parts.
func (s *stream) flush(ctx context.Context, position uint64) error {
	c := change{s.rows, position}
	s.rows = nil
	return s.enqueue(ctx, c)
}

// enqueue waits until changes has room, and meanwhile keeps the session alive with status updates.
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
