package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// fakeSource is a source whose stream delivers what the test gives it. A real stream cannot be made
// late, or sent back to an earlier position, at a given moment.
type fakeSource struct {
	s             *outboxtest.Env
	mu            sync.Mutex
	rows          []outbox.Row // the next call of Next returns them
	trickle       []outbox.Row // each further call returns one of them
	position      uint64
	err           error // that Next returns
	confirmed     uint64
	afterSnapshot func()      // Begin calls it between the snapshot and the stream
	snapshot      pg.Snapshot // that Begin returns; empty: the current one
}

func (f *fakeSource) Begin(ctx context.Context) (outbox.Stream, pg.Snapshot, error) {
	now, err := pg.Now(ctx, f.s.DB)
	if f.afterSnapshot != nil {
		f.afterSnapshot()
	}
	if f.snapshot != "" {
		now = f.snapshot
	}
	return f, now, err
}

func (f *fakeSource) Resume(context.Context) (outbox.Stream, error) {
	return nil, outbox.ErrNoCheckpoint
}

func (f *fakeSource) Drop(context.Context) error { return nil }

func (f *fakeSource) State(context.Context) (outbox.SlotState, error) {
	return outbox.SlotState{}, nil
}

func (f *fakeSource) Close() {}

func (f *fakeSource) Next(_ context.Context, wait time.Duration) ([]outbox.Row, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rows := f.rows
	f.rows = nil
	if len(rows) == 0 && len(f.trickle) > 0 {
		rows, f.trickle, f.position = f.trickle[:1], f.trickle[1:], f.position+1
	}
	if len(rows) == 0 {
		timer := time.NewTimer(wait)
		<-timer.C
	}
	return rows, f.position, f.err
}

func (f *fakeSource) Confirm(position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmed = position
}

// deliver makes the stream return the rows of these events and a position after them.
func (f *fakeSource) deliver(position uint64, ids ...string) {
	f.s.WaitFor("the stream has returned the rows before", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.rows == nil {
			for _, id := range ids {
				var r outbox.Row
				if err := f.s.DB.QueryRow(`SELECT seq, id::text, aggregateid, type, payload::text, headers::text
					FROM outbox WHERE id = $1`, id).
					Scan(&r.Seq, &r.ID, &r.AggregateID, &r.Type, &r.Payload, &r.Headers); err != nil {
					panic(err)
				}
				f.rows = append(f.rows, r)
			}
			f.position = position
			return true
		}
		return false
	})
}

func (f *fakeSource) confirmedAt() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.confirmed
}

// startStreaming runs a relay that streams from a fakeSource.
func startStreaming(t *testing.T, s *outboxtest.Env) (*outbox.Relay, *fakeSource) {
	t.Helper()
	r, f := s.Relay(s.Out), &fakeSource{s: s}
	r.Source = f
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.WaitFor("the relay streams", func() bool { return r.Stats().Streaming })
	return r, f
}

// A stream is late, and fails after the window is wanted again. The window must go on from what the
// stream has delivered, not from what was committed when the source was changed.
func TestLateStreamLosesNothing(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := startStreaming(t, s)
	first := s.AppendNotes("a", 1)
	f.deliver(10, first...)
	s.Await(s.Queue, first)
	undelivered := s.AppendNotes("a", 2)
	if err := s.Out.UseSource(t.Context(), outbox.FromWindow); err != nil {
		t.Fatal(err)
	}
	var since time.Time
	if err := s.DB.Get(&since, `SELECT clock_timestamp()`); err != nil {
		t.Fatal(err)
	}
	s.WaitFor("the leader reads the wanted source", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT source, epoch%'
			AND query_start > $1`, since) > 0
	})
	f.deliver(20) // a position before the end of what is committed
	s.WaitFor("the position is confirmed", func() bool { return f.confirmedAt() == 20 })
	f.deliver(30)
	s.WaitFor("the position is confirmed", func() bool { return f.confirmedAt() == 30 })
	if !r.Stats().Streaming {
		t.Fatal("the relay left the stream before the stream had delivered all rows")
	}
	f.mu.Lock()
	f.err = errors.New("the stream has failed")
	f.mu.Unlock()
	s.Await(s.Queue, undelivered)
}

// The stream delivers the rows again that the window has published after the snapshot of the
// stream. The relay skips them.
func TestRowsBetweenSnapshotAndStreamArePublishedOnce(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := s.Relay(s.Out), &fakeSource{s: s}
	var between []string
	f.afterSnapshot = func() {
		between = s.AppendNotes("a", 1, 2)
		s.WaitFor("the window has published them", func() bool { return r.Stats().Published == 2 })
	}
	r.Source = f
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.WaitFor("the relay streams", func() bool { return r.Stats().Streaming })
	f.deliver(10, between...)
	after := s.AppendNotes("a", 3)
	f.deliver(20, after...)
	s.Await(s.Queue, append(between, after...))
	s.WaitFor("the position is confirmed", func() bool { return f.confirmedAt() == 20 })
	if n := r.Stats().Published; n != 3 {
		t.Errorf("%d events were published, want 3", n)
	}
}

// A position must not be confirmed before all rows before it are settled: after a crash the stream
// would not deliver them again.
func TestPositionIsConfirmedWhenAllBeforeItIsSettled(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	r, f := s.Relay(s.Out), &fakeSource{s: s}
	r.Source, r.URL = f, proxy.URL
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.WaitFor("the relay streams", func() bool { return r.Stats().Streaming })
	proxy.Hold(outboxtest.FromBroker)
	ids := s.AppendNotes("a", 1, 2)
	f.deliver(10, ids...)
	s.Await(s.Queue, ids)
	f.deliver(20) // the relay awaits the confirms first
	if at := f.confirmedAt(); at != 0 {
		t.Errorf("position %d is confirmed before the broker has confirmed the events", at)
	}
	proxy.Release()
	s.WaitFor("the position is confirmed", func() bool { return f.confirmedAt() == 20 })
}

// A stream that goes back to an earlier position delivers held rows again. They stay held as they
// are, and so do the rows that wait behind them.
func TestRedeliveredHeldRowsStayHeld(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	_, f := startStreaming(t, s)
	bad := s.InsertRaw("a", "note.taken", `{}`, `[]`)
	behind := s.AppendNotes("a", 1)
	f.deliver(10, append([]string{bad}, behind...)...)
	const held = `SELECT count(*) FROM outbox_held WHERE due = 'infinity' AND attempts = 1`
	s.WaitFor("the row is quarantined", func() bool {
		return s.Count(held) == 1 &&
			s.Count(`SELECT count(*) FROM outbox_held`) == 2
	})
	before := s.Count(`SELECT sum(xmin::text::bigint)::bigint FROM outbox_held`)
	f.deliver(10, append([]string{bad}, behind...)...)
	good := s.AppendNotes("b", 1)
	f.deliver(30, good...)
	s.Await(s.Queue, good)
	if after := s.Count(`SELECT sum(xmin::text::bigint)::bigint FROM outbox_held`); after != before ||
		s.Count(held) != 1 {
		t.Errorf("the held rows were written again")
	}
	if ids := s.HeldIDs("true"); !slices.Contains(ids, bad) || !slices.Contains(ids, behind[0]) {
		t.Errorf("held %v", ids)
	}
}

// The slot's snapshot may include a transaction that no query sees yet, such as one that waits for
// a synchronous standby. The stream does not deliver its rows, so the hand-over waits until the
// window can read them.
func TestHandOverWaitsForTransactionsNotYetVisible(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := s.Relay(s.Out), &fakeSource{s: s}
	begun := make(chan bool)
	late := outboxtest.Event(outboxtest.Note{On: "late", N: 1})
	tx := s.Begin()
	s.AppendIn(tx, late)
	var xid int64
	if err := tx.Get(&xid, `SELECT pg_current_xact_id()::text::bigint`); err != nil {
		t.Fatal(err)
	}
	f.snapshot = pg.Snapshot(fmt.Sprintf("%d:%d:", xid+1, xid+1))
	f.afterSnapshot = func() { close(begun) }
	r.Source = f
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	<-begun
	s.Await(s.Queue, s.AppendNotes("a", 1)) // the window goes on
	if r.Stats().Streaming {
		t.Error("the relay streams before the transaction is visible")
	}
	s.Commit(tx)
	s.Await(s.Queue, []string{late.ID})
	s.WaitFor("the relay streams", func() bool { return r.Stats().Streaming })
}

// A replay waits for rows that the stream has published but the cursor has not passed yet.
func TestReplayOfJustStreamedRows(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	_, f := startStreaming(t, s)
	ids := s.AppendNotes("a", 1, 2)
	f.deliver(10, ids...)
	s.Receive(s.Queue, 2)
	var since time.Time
	if err := s.DB.Get(&since, `SELECT clock_timestamp()`); err != nil {
		t.Fatal(err)
	}
	request, err := s.Out.ReplayIDs(t.Context(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	s.WaitFor("the leader looks for the requested rows", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid()
			AND (query LIKE '%AS settled%' OR query LIKE '%UPDATE outbox_replay%') AND query_start > $1`,
			since) > 0
	})
	f.deliver(1 << 62) // the cursor passes it
	s.Await(s.Queue, ids)
	s.WaitFor("the request is done", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_replay WHERE id = $1 AND done_at IS NOT NULL
			AND published = 2`, request) == 1
	})
}

// Rows that are held behind others, while those are published again, are published after them.
func TestRowsThatJoinHeldRowsArePublished(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := s.Relay(s.Out), &fakeSource{s: s}
	r.Source, r.Mandatory = f, outboxtest.IsOrphan
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.WaitFor("the relay streams", func() bool { return r.Stats().Streaming })
	first := outboxtest.Event(outboxtest.Orphan{On: "a"})
	s.Append(first)
	f.deliver(1, first.ID)
	s.WaitFor("the row is held", func() bool { return len(s.HeldIDs("true")) == 1 })
	s.Bind(s.Queue, "orphan.born")
	var numbers []int
	for n := range 900 { // fewer than MaxHeld
		numbers = append(numbers, n+1)
	}
	ids := s.AppendNotes("a", numbers...)
	var rows []outbox.Row
	if err := s.DB.Select(&rows, `SELECT seq, id::text, aggregateid, type, payload::text, headers::text
		FROM outbox WHERE aggregateid = 'a' AND type = 'note.taken' ORDER BY seq`); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.trickle = rows
	f.mu.Unlock()
	s.Await(s.Queue, append(ids, first.ID))
	s.WaitFor("nothing is held",
		func() bool { return s.Count(`SELECT count(*) FROM outbox_held`) == 0 })
}
