package outbox

import (
	"context"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// markInterval is the time between two marks. The window publishes about as much again when it
// takes over from a stream.
const markInterval = 200 * time.Millisecond

// streaming is a stream in use. It delivers rows in the order of their commits, not of their seqs.
type streaming struct {
	Stream
	conn        *sqlx.Conn
	at          pg.Snapshot    // of the last mark that was reached
	skip        map[int64]bool // seqs that the stream will deliver but the window has settled
	received    int64          // the number of the last row
	waiting     []row          // received, but not delivered yet
	checkpoints []checkpoint   // not settled yet, the oldest first
	settled     uint64         // the position up to which all rows are settled
	unmarked    bool           // rows were delivered since the last mark
	mark        *mark          // not reached yet
	markedAt    time.Time
	leaving     bool // the window is wanted
	left        bool // a mark was reached since then, and the window can take over
}

// checkpoint is a position of the stream that can be confirmed when all rows up to a number are
// settled.
type checkpoint struct {
	number   int64
	position uint64
}

// mark is a snapshot and a position of the stream that is later than every commit in the snapshot.
// When the stream has reached the position, all rows that are visible in the snapshot are settled,
// and the window can go on from that snapshot.
type mark struct {
	snapshot pg.Snapshot
	position uint64
}

// streamError is an error of the stream itself, for which the relay falls back to the window.
type streamError struct{ error }

func (e streamError) Unwrap() error { return e.error }

func (s *streaming) next(ctx context.Context, mayWait bool) ([]row, error) {
	if len(s.waiting) == 0 {
		if err := s.receive(ctx, mayWait); err != nil {
			return nil, err
		}
		if err := s.takeMark(ctx); err != nil {
			return nil, err
		}
	}
	n := min(len(s.waiting), chunkSize)
	rows := s.waiting[:n]
	s.waiting = s.waiting[n:]
	return rows, nil
}

// receive receives and numbers the next rows.
func (s *streaming) receive(ctx context.Context, mayWait bool) error {
	timeout := time.Duration(0)
	if mayWait {
		timeout = pollInterval
	}
	found, position, err := s.Next(ctx, timeout)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return streamError{err}
	}
	s.waiting = nil
	for _, r := range found {
		if s.skip[r.Seq] {
			delete(s.skip, r.Seq)
			continue
		}
		s.received++
		s.waiting, s.unmarked = append(s.waiting, r.row(s.received)), true
	}
	if n := len(s.checkpoints); position > s.settled &&
		(n == 0 || position > s.checkpoints[n-1].position) {
		s.checkpoints = append(s.checkpoints, checkpoint{s.received, position})
	}
	return nil
}

// takeMark takes the next mark when the last one was reached. The window goes on from its snapshot
// when the stream is left or lost.
func (s *streaming) takeMark(ctx context.Context) error {
	if s.mark != nil || !s.unmarked && !s.leaving || time.Since(s.markedAt) < markInterval {
		return nil
	}
	s.markedAt = time.Now()
	var m struct {
		Snapshot pg.Snapshot `db:"snapshot"`
		Position int64       `db:"position"`
	}
	// The snapshot is taken before the position, so that each commit in it lies before the position.
	err := s.conn.GetContext(ctx, &m, `SELECT pg_current_snapshot()::text AS snapshot,
		(pg_current_wal_insert_lsn() - '0/0')::bigint AS position`)
	if err != nil {
		return wrap("mark the stream", err)
	}
	s.mark, s.unmarked = &mark{m.Snapshot, uint64(m.Position)}, false
	return nil
}

// checkpoint moves to the last position whose rows are settled, and to the snapshot of a mark that
// the stream has reached.
func (s *streaming) checkpoint(number int64) position {
	n := 0
	for n < len(s.checkpoints) && s.checkpoints[n].number <= number {
		n++
	}
	if n > 0 {
		s.settled = s.checkpoints[n-1].position
		s.checkpoints = slices.Delete(s.checkpoints, 0, n)
	}
	if s.mark != nil && s.settled >= s.mark.position {
		s.at, s.mark, s.left = s.mark.snapshot, nil, s.leaving
	}
	return position{A: s.at, B: s.at, Streamed: true}
}

// stored confirms the settled rows to the server. It must not know of them earlier: the server
// keeps its own record of the position, so a confirmed row would not come again after a crash, even
// if the relay could not store that it holds the row.
func (s *streaming) stored() {
	if s.settled > 0 { // the position of a stream that has just resumed is not known yet
		s.Confirm(s.settled)
	}
}

func (s *streaming) close() { s.Close() }
