package outbox

import (
	"context"
	"slices"
	"time"

	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of choosing between the window and a stream.
const (
	chooseInterval = time.Second            // how late a change of mind is noticed
	streamRetry    = 5 * time.Second        // after a stream has failed
	markInterval   = 200 * time.Millisecond // how much the window repeats after a stream
	slotInterval   = 5 * time.Second        // how often the place is looked after
)

// choice is how the leader finds what was committed: through the stream, or, when it is nil,
// through the window.
type choice struct {
	nextCheck   time.Time // the next look at what is wanted
	stream      *streaming
	starting    chan streamStart // not nil while a place is being made
	started     *streamStart     // the window is to go on to its snapshot, and no further
	slotDropped bool             // no place is left of an earlier time
}

// streamStart is a stream and the snapshot that it begins after.
type streamStart struct {
	stream   Stream
	snapshot postgres.Snapshot
	err      error
}

// streaming is a stream in use. Its rows are numbered as they come, and the cursor's LastSeq counts
// those that are settled.
type streaming struct {
	Stream
	skip            map[int64]bool // rows that come, and that the window has settled
	received        int64
	checkpoints     []checkpoint // up to which everything is settled once the number is
	confirmed       uint64
	confirmedNumber int64 // the number up to there
	unmarked        bool  // since the last mark
	mark            *mark
	markedAt        time.Time
	leaving         bool
	slotCheckedAt   time.Time
}

type checkpoint struct {
	number   int64
	position uint64
}

// mark is a snapshot all of which the stream has had when it has come to the place: a left edge for
// the window to go on from.
type mark struct {
	snapshot postgres.Snapshot
	position uint64
}

// streamStep publishes what the stream has, and confirms what is settled of it.
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
	patience := pollInterval
	if len(t.inFlight) > 0 {
		patience = 0
	}
	rows, place, err := s.Next(ctx, patience)
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
	if n := len(s.checkpoints); place > s.confirmed && (n == 0 || place > s.checkpoints[n-1].position) {
		s.checkpoints = append(s.checkpoints, checkpoint{s.received, place})
	}
	for len(rows) == 0 && len(t.inFlight) > 0 {
		if err := t.settleOldest(ctx, false); err != nil {
			return err
		}
	}
	s.confirmSettled(t.cursor.LastSeq)
	return t.markStep(ctx)
}

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
		size := min(t.batch(chunkSize), len(rows)) // it may change with each part
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

// confirmSettled confirms the places that the rows up to a number have led to.
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

// markStep moves the cursor behind the stream: to snapshots that the stream has left behind. There
// the window goes on, when the stream is left or lost.
func (t *term) markStep(ctx context.Context) error {
	s := t.choice.stream
	if s.mark != nil && s.confirmed >= s.mark.position {
		t.cursor.A, t.cursor.B = s.mark.snapshot, s.mark.snapshot
		s.mark = nil
		if s.leaving {
			if err := t.settleAll(ctx, false); err != nil {
				return err
			}
			t.relay.Log.Info().Msg("relay leaves the stream for the window")
			return t.useWindow(ctx)
		}
		return t.save(ctx, nil)
	}
	if s.mark != nil || !s.unmarked && !s.leaving || time.Since(s.markedAt) < markInterval {
		return nil
	}
	s.markedAt = time.Now()
	var m struct {
		Snapshot postgres.Snapshot `db:"snapshot"`
		Place    int64             `db:"place"`
	}
	// The snapshot is older than the place: whatever is visible in it was committed before there.
	err := t.conn.GetContext(ctx, &m, `SELECT pg_current_snapshot()::text AS snapshot,
		(pg_current_wal_insert_lsn() - '0/0')::bigint AS place`)
	if err != nil {
		return wrap("mark the stream", err)
	}
	s.mark, s.unmarked = &mark{m.Snapshot, uint64(m.Place)}, false
	return nil
}
