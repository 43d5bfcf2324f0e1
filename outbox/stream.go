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
	at     time.Time // the next look at what is wanted
	stream *streaming
	begun  chan begun // not nil while a place is being made
	ready  *begun     // the window is to go on to its snapshot, and no further
	tidied bool       // no place is left of an earlier time
}

// begun is a stream and the snapshot that it begins after.
type begun struct {
	stream   Stream
	snapshot postgres.Snapshot
	err      error
}

// streaming is a stream in use. Its rows are numbered as they come, and the cursor's LastSeq counts
// those that are settled.
type streaming struct {
	Stream
	had     map[int64]bool // rows that come, and that the window has settled
	number  int64
	places  []numbered // up to which everything is settled once the number is
	settled uint64
	base    int64 // the number up to there
	news    bool  // since the last mark
	mark    *mark
	marked  time.Time
	leaving bool
	watched time.Time
}

type numbered struct {
	number   int64
	position uint64
}

// mark is a snapshot all of which the stream has had when it has come to the place: a left edge for
// the window to go on from.
type mark struct {
	snapshot postgres.Snapshot
	place    uint64
}

// streamStep publishes what the stream has, and confirms what is settled of it.
func (p *term) streamStep(ctx context.Context) error {
	s := p.choice.stream
	if p.publisher.Blocked() || p.brokerBroken() {
		if err := p.settleAll(ctx, false); err != nil {
			return err
		}
		return wait(ctx, p.publisher, pollInterval, nil)
	}
	if err := p.publisher.Err(); err != nil {
		return p.sessionLost(ctx, nil, err)
	}
	patience := pollInterval
	if len(p.inFlight) > 0 {
		patience = 0
	}
	rows, place, err := s.Next(ctx, patience)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := p.settleAll(ctx, false); err != nil {
			return err
		}
		return p.fallBack(ctx, err)
	}
	if err := p.publishStreamed(ctx, rows); err != nil {
		return err
	}
	if n := len(s.places); place > s.settled && (n == 0 || place > s.places[n-1].position) {
		s.places = append(s.places, numbered{s.number, place})
	}
	for len(rows) == 0 && len(p.inFlight) > 0 {
		if err := p.settleOldest(ctx, false); err != nil {
			return err
		}
	}
	s.settle(p.cursor.LastSeq)
	return p.markStep(ctx)
}

func (p *term) publishStreamed(ctx context.Context, found []Row) error {
	s := p.choice.stream
	rows := make([]row, 0, len(found))
	for _, r := range found {
		if s.had[r.Seq] {
			delete(s.had, r.Seq)
			continue
		}
		s.number++
		rows = append(rows, r.row(s.number))
	}
	for len(rows) > 0 {
		size := min(p.batch(chunkSize), len(rows)) // it may change with each part
		for len(p.inFlight) >= p.batch(chunksInFlight) {
			if err := p.settleOldest(ctx, false); err != nil {
				return err
			}
		}
		if err := p.publishRows(ctx, rows[:size]); err != nil {
			return err
		}
		rows = rows[size:]
		s.news = true
	}
	return nil
}

// settle confirms the places that the rows up to a number have led to.
func (s *streaming) settle(number int64) {
	n := 0
	for n < len(s.places) && s.places[n].number <= number {
		n++
	}
	if n > 0 {
		s.settled, s.base = s.places[n-1].position, s.places[n-1].number
		s.places = slices.Delete(s.places, 0, n)
		s.Confirm(s.settled)
	}
}

// markStep moves the cursor behind the stream: to snapshots that the stream has left behind. There
// the window goes on, when the stream is left or lost.
func (p *term) markStep(ctx context.Context) error {
	s := p.choice.stream
	if s.mark != nil && s.settled >= s.mark.place {
		p.cursor.A, p.cursor.B = s.mark.snapshot, s.mark.snapshot
		s.mark = nil
		if s.leaving {
			if err := p.settleAll(ctx, false); err != nil {
				return err
			}
			p.relay.Log.Info().Msg("relay leaves the stream for the window")
			return p.useWindow(ctx)
		}
		return p.save(ctx, nil)
	}
	if s.mark != nil || !s.news && !s.leaving || time.Since(s.marked) < markInterval {
		return nil
	}
	s.marked = time.Now()
	var m struct {
		Snapshot postgres.Snapshot `db:"snapshot"`
		Place    int64             `db:"place"`
	}
	// The snapshot is older than the place: whatever is visible in it was committed before there.
	err := p.conn.GetContext(ctx, &m, `SELECT pg_current_snapshot()::text AS snapshot,
		(pg_current_wal_insert_lsn() - '0/0')::bigint AS place`)
	if err != nil {
		return wrap("mark the stream", err)
	}
	s.mark, s.news = &mark{m.Snapshot, uint64(m.Place)}, false
	return nil
}
