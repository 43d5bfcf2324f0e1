package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
	"github.com/quadrille-go/quadrille/postgres"
)

// script is a source whose stream does what a test wants; those of package cdc, which are real,
// cannot be made to be late or to go back at a given moment.
type script struct {
	s         *outboxtest.Env
	mu        sync.Mutex
	rows      []outbox.Row
	endless   []outbox.Row // one at a time, whenever it is asked
	place     uint64
	err       error
	confirmed uint64
	begun     func()            // between the snapshot and the stream
	at        postgres.Snapshot // if it is not that of now
}

func (f *script) Begin(ctx context.Context) (outbox.Stream, postgres.Snapshot, error) {
	now, err := postgres.Now(ctx, f.s.DB)
	if f.begun != nil {
		f.begun()
	}
	if f.at != "" {
		now = f.at
	}
	return f, now, err
}
func (f *script) Resume(context.Context) (outbox.Stream, error) {
	return nil,
		outbox.ErrNoCheckpoint
}
func (f *script) Drop(context.Context) error                      { return nil }
func (f *script) State(context.Context) (outbox.SlotState, error) { return outbox.SlotState{}, nil }
func (f *script) Close()                                          {}
func (f *script) Next(_ context.Context, wait time.Duration) ([]outbox.Row, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rows := f.rows
	f.rows = nil
	if len(rows) == 0 && len(f.endless) > 0 {
		rows, f.endless, f.place = f.endless[:1], f.endless[1:], f.place+1
	}
	if len(rows) == 0 {
		timer := time.NewTimer(wait)
		<-timer.C
	}
	return rows, f.place, f.err
}

func (f *script) Confirm(place uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmed = place
}

// deliver lets the stream have the rows of events, up to a place.
func (f *script) deliver(place uint64, ids ...string) {
	f.s.Until("the rows are delivered", func() bool {
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
			f.place = place
			return true
		}
		return false
	})
}

func (f *script) confirmedAt() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.confirmed
}

// streaming is a relay that streams from a script.
func streaming(t *testing.T, s *outboxtest.Env) (*outbox.Relay, *script) {
	t.Helper()
	r, f := s.Relay(s.Out), &script{s: s}
	r.Source = f
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.Until("it streams", func() bool { return r.Stats().Streaming })
	return r, f
}

// A stream that is late, and then fails, takes nothing with it: the window goes on from what the
// stream has had, not from what there was when it was asked.
func TestLateStreamTakesNothingWithIt(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := streaming(t, s)
	first := s.Publish("a", 1)
	f.deliver(10, first...)
	s.Await(s.Queue, first)
	never := s.Publish("a", 2)
	if err := s.Out.UseSource(t.Context(), outbox.FromWindow); err != nil {
		t.Fatal(err)
	}
	var asked time.Time
	if err := s.DB.Get(&asked, `SELECT clock_timestamp()`); err != nil {
		t.Fatal(err)
	}
	s.Until("the change of mind is noticed", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT source, epoch%'
			AND query_start > $1`, asked) > 0
	})
	f.deliver(20) // which is before the end of what was committed
	s.Until("it is seen", func() bool { return f.confirmedAt() == 20 })
	f.deliver(30)
	s.Until("it is seen", func() bool { return f.confirmedAt() == 30 })
	if !r.Stats().Streaming {
		t.Fatal("the stream was left before it had all")
	}
	f.mu.Lock()
	f.err = errors.New("the line is dead")
	f.mu.Unlock()
	s.Await(s.Queue, never)
}

// What the window has had since the snapshot that the stream begins at comes from the stream again,
// and is left out.
func TestRowsBetweenSnapshotAndStreamComeOnce(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := s.Relay(s.Out), &script{s: s}
	var between []string
	f.begun = func() {
		between = s.Publish("a", 1, 2)
		s.Until("the window has them", func() bool { return r.Stats().Published == 2 })
	}
	r.Source = f
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.Until("it streams", func() bool { return r.Stats().Streaming })
	f.deliver(10, between...)
	after := s.Publish("a", 3)
	f.deliver(20, after...)
	s.Await(s.Queue, append(between, after...))
	s.Until("it is confirmed", func() bool { return f.confirmedAt() == 20 })
	if n := r.Stats().Published; n != 3 {
		t.Errorf("%d events were published, want 3", n)
	}
}

// A place is confirmed when all before it is settled, and not before.
func TestPlaceIsConfirmedWhenAllBeforeItIsSettled(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	link := outboxtest.NewLink(t, s.AMQP)
	r, f := s.Relay(s.Out), &script{s: s}
	r.Source, r.URL = f, link.URL
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.Until("it streams", func() bool { return r.Stats().Streaming })
	link.Hold(outboxtest.FromBroker)
	ids := s.Publish("a", 1, 2)
	f.deliver(10, ids...)
	s.Await(s.Queue, ids)
	f.deliver(20) // it is not looked at before the confirms
	if at := f.confirmedAt(); at != 0 {
		t.Errorf("%d is confirmed before the broker has confirmed the events", at)
	}
	link.Release()
	s.Until("it is confirmed", func() bool { return f.confirmedAt() == 20 })
}

// A stream that goes back brings what is held again: it does not start over, nor does what waits
// behind.
func TestHeldRowsThatComeAgainStayHeld(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	_, f := streaming(t, s)
	bad := s.Raw("a", "note.taken", `{}`, `[]`)
	behind := s.Publish("a", 1)
	f.deliver(10, append([]string{bad}, behind...)...)
	const held = `SELECT count(*) FROM outbox_held WHERE due = 'infinity' AND attempts = 1`
	s.Until("it is held for ever", func() bool {
		return s.Count(held) == 1 &&
			s.Count(`SELECT count(*) FROM outbox_held`) == 2
	})
	before := s.Count(`SELECT sum(xmin::text::bigint)::bigint FROM outbox_held`)
	f.deliver(10, append([]string{bad}, behind...)...)
	good := s.Publish("b", 1)
	f.deliver(30, good...)
	s.Await(s.Queue, good)
	if after := s.Count(`SELECT sum(xmin::text::bigint)::bigint FROM outbox_held`); after != before ||
		s.Count(held) != 1 {
		t.Errorf("what is held was written again")
	}
	if ids := s.HeldIDs("true"); !slices.Contains(ids, bad) || !slices.Contains(ids, behind[0]) {
		t.Errorf("held %v", ids)
	}
}

// The slot's snapshot may have a transaction that no query sees yet, such as one that waits for
// a synchronous standby: the window waits for it, since the stream will not have it.
func TestHandOverWaitsForWhatOnlyTheLogHas(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := s.Relay(s.Out), &script{s: s}
	begun := make(chan bool)
	late := outboxtest.Event(outboxtest.Note{On: "late", N: 1})
	tx := s.Begin()
	s.AppendIn(tx, late)
	var xid int64
	if err := tx.Get(&xid, `SELECT pg_current_xact_id()::text::bigint`); err != nil {
		t.Fatal(err)
	}
	f.at = postgres.Snapshot(fmt.Sprintf("%d:%d:", xid+1, xid+1))
	f.begun = func() { close(begun) }
	r.Source = f
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	<-begun
	s.Await(s.Queue, s.Publish("a", 1)) // the window goes on
	if r.Stats().Streaming {
		t.Error("it streams already")
	}
	s.Commit(tx)
	s.Await(s.Queue, []string{late.ID})
	s.Until("it streams", func() bool { return r.Stats().Streaming })
}

// What the stream has just published, and the cursor has not passed yet, is published again all the
// same.
func TestReplayOfWhatWasJustStreamed(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	_, f := streaming(t, s)
	ids := s.Publish("a", 1, 2)
	f.deliver(10, ids...)
	s.Receive(s.Queue, 2)
	var asked time.Time
	if err := s.DB.Get(&asked, `SELECT clock_timestamp()`); err != nil {
		t.Fatal(err)
	}
	request, err := s.Out.ReplayIDs(t.Context(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	s.Until("its turn has come", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid()
			AND (query LIKE '%AS settled%' OR query LIKE '%UPDATE outbox_replay%') AND query_start > $1`,
			asked) > 0
	})
	f.deliver(1 << 62) // the cursor passes it
	s.Await(s.Queue, ids)
	s.Until("the request is done", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_replay WHERE id = $1 AND done_at IS NOT NULL
			AND published = 2`, request) == 1
	})
}

// What joins held rows while these are tried again is held with them, and published after them.
func TestWhatJoinsHeldRowsIsNotForgotten(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r, f := s.Relay(s.Out), &script{s: s}
	r.Source, r.Mandatory = f, outboxtest.OnlyOrphan
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	s.Until("it streams", func() bool { return r.Stats().Streaming })
	first := outboxtest.Event(outboxtest.Orphan{On: "a"})
	s.Append(first)
	f.deliver(1, first.ID)
	s.Until("it is held", func() bool { return len(s.HeldIDs("true")) == 1 })
	s.Bind(s.Queue, "orphan.born")
	var numbers []int
	for n := range 900 { // fewer than make a broken broker
		numbers = append(numbers, n+1)
	}
	ids := s.Publish("a", numbers...)
	var rows []outbox.Row
	if err := s.DB.Select(&rows, `SELECT seq, id::text, aggregateid, type, payload::text, headers::text
		FROM outbox WHERE aggregateid = 'a' AND type = 'note.taken' ORDER BY seq`); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.endless = rows
	f.mu.Unlock()
	s.Await(s.Queue, append(ids, first.ID))
	s.Until("nothing is held", func() bool { return s.Count(`SELECT count(*) FROM outbox_held`) == 0 })
}
