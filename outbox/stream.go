package outbox

import (
	"context"
	"slices"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of the choice between the window and a stream.
const (
	chooseInterval = time.Second     // between two reads of the wanted source
	streamRetry    = 5 * time.Second // after a stream has failed
	// markInterval is the time between two marks. The window publishes about as much again when it
	// takes over from a stream.
	markInterval = 200 * time.Millisecond
	slotInterval = 5 * time.Second // between two checks of the slot
)

// choice is the source of committed rows in use: the stream, or the window when stream is nil. The
// path from the window to a stream is starting, then started, then stream; see handOver.
type choice struct {
	nextCheck   time.Time
	stream      *streaming
	starting    chan streamStart // the result of Source.Begin; nil when none is running
	started     *streamStart     // the window must reach its snapshot before the stream is used
	slotDropped bool             // there is no slot that an earlier use of the stream has left
}

// streamStart is the result of Source.Begin: a stream, and the snapshot after which it begins.
type streamStart struct {
	stream   Stream
	snapshot pg.Snapshot
	err      error
}

// streaming is a stream in use. A stream delivers rows in the order of their commits, not of their
// seqs. Rows therefore get a running number as they arrive, and the cursor's LastSeq is the number
// up to which all are settled.
type streaming struct {
	Stream
	skip            map[int64]bool // seqs that the stream will deliver but the window has settled
	received        int64          // the number of the last row
	checkpoints     []checkpoint   // not confirmed yet, the oldest first
	confirmed       uint64         // the position that was confirmed last
	confirmedNumber int64          // the number of the last row before that position
	unmarked        bool           // rows were published since the last mark
	mark            *mark          // not reached yet
	markedAt        time.Time
	leaving         bool // the window is wanted; it takes over at the next mark
	slotCheckedAt   time.Time
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

// streamStep publishes the next rows of the stream, and confirms positions whose rows are settled.
func (t *term) streamStep(ctx context.Context) error {
	s := t.choice.stream
	if t.publisher.Blocked() || t.brokerBroken() {
		if err := t.settleAll(ctx, false); err != nil {
			return err
		}
		return wait(ctx, t.publisher, pollInterval, nil)
	}
	if err := t.publisher.Err(); err != nil {
		return t.sessionLost(ctx, nil, err)
	}
	timeout := pollInterval
	if len(t.inFlight) > 0 {
		timeout = 0 // the confirms are awaited below
	}
	rows, position, err := s.Next(ctx, timeout)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := t.settleAll(ctx, false); err != nil {
			return err
		}
		return t.fallBack(ctx, err)
	}
	if err := t.publishStreamed(ctx, rows); err != nil {
		return err
	}
	if n := len(s.checkpoints); position > s.confirmed &&
		(n == 0 || position > s.checkpoints[n-1].position) {
		s.checkpoints = append(s.checkpoints, checkpoint{s.received, position})
	}
	for len(rows) == 0 && len(t.inFlight) > 0 {
		if err := t.settleOldest(ctx, false); err != nil {
			return err
		}
	}
	s.confirmSettled(t.cursor.LastSeq)
	return t.markStep(ctx)
}

// publishStreamed numbers rows and publishes them in chunks.
func (t *term) publishStreamed(ctx context.Context, found []Row) error {
	s := t.choice.stream
	rows := make([]row, 0, len(found))
	for _, r := range found {
		if s.skip[r.Seq] {
			delete(s.skip, r.Seq)
			continue
		}
		s.received++
		rows = append(rows, r.row(s.received))
	}
	for len(rows) > 0 {
		size := min(t.batch(chunkSize), len(rows)) // it grows when no suspects are left
		for len(t.inFlight) >= t.batch(chunksInFlight) {
			if err := t.settleOldest(ctx, false); err != nil {
				return err
			}
		}
		if err := t.publishRows(ctx, rows[:size]); err != nil {
			return err
		}
		rows = rows[size:]
		s.unmarked = true
	}
	return nil
}

// confirmSettled confirms the last checkpoint whose rows are settled; number is that of the last
// settled row.
func (s *streaming) confirmSettled(number int64) {
	n := 0
	for n < len(s.checkpoints) && s.checkpoints[n].number <= number {
		n++
	}
	if n > 0 {
		s.confirmed, s.confirmedNumber = s.checkpoints[n-1].position, s.checkpoints[n-1].number
		s.checkpoints = slices.Delete(s.checkpoints, 0, n)
		s.Confirm(s.confirmed)
	}
}

// markStep makes the stored cursor follow the stream: it moves the cursor to the snapshot of a mark
// that the stream has reached, and then takes the next mark. The window goes on from that snapshot
// when the stream is left or lost.
func (t *term) markStep(ctx context.Context) error {
	s := t.choice.stream
	if s.mark != nil && s.confirmed >= s.mark.position {
		t.cursor.A, t.cursor.B = s.mark.snapshot, s.mark.snapshot
		s.mark = nil
		if s.leaving {
			if err := t.settleAll(ctx, false); err != nil {
				return err
			}
			t.relay.Log.Info().Msg("relay stops streaming and uses the window")
			return t.useWindow(ctx)
		}
		return t.save(ctx, nil)
	}
	if s.mark != nil || !s.unmarked && !s.leaving || time.Since(s.markedAt) < markInterval {
		return nil
	}
	s.markedAt = time.Now()
	var m struct {
		Snapshot pg.Snapshot `db:"snapshot"`
		Position int64       `db:"position"`
	}
	// The snapshot is taken before the position, so that each commit in it lies before the position.
	err := t.conn.GetContext(ctx, &m, `SELECT pg_current_snapshot()::text AS snapshot,
		(pg_current_wal_insert_lsn() - '0/0')::bigint AS position`)
	if err != nil {
		return wrap("mark the stream", err)
	}
	s.mark, s.unmarked = &mark{m.Snapshot, uint64(m.Position)}, false
	return nil
}
