package outbox_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

func TestAppendedEventReachesQueue(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Run(s.Relay(s.Out))
	ids := s.AppendNotes("a", 1, 2, 3)
	if got := outboxtest.MessageIDs(s.Receive(s.Queue, 3)); !slices.Equal(got, ids) {
		t.Fatalf("received %v, appended %v", got, ids)
	}
}

func TestEventOfRolledBackTransactionIsNotPublished(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Run(s.Relay(s.Out))
	refused := errors.New("refused")
	err := s.Out.Tx(t.Context(), func(tx *sqlx.Tx) error {
		if err := s.Out.Append(t.Context(), tx,
			outboxtest.Event(outboxtest.Note{On: "a", N: 1})); err != nil {
			return err
		}
		return refused
	})
	if !errors.Is(err, refused) {
		t.Fatalf("error %v", err)
	}
	ids := s.AppendNotes("a", 2) // OUT-05: the rolled back seq leaves a gap
	if got := outboxtest.MessageIDs(s.Receive(s.Queue, 1)); !slices.Equal(got, ids) {
		t.Fatalf("received %v, committed %v", got, ids)
	}
}

// OUT-01, OUT-02: rows become visible in another order than that of their seqs and their times.
func TestRowThatCommitsLateIsNotSkipped(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Run(s.Relay(s.Out))
	early, late := outboxtest.Event(outboxtest.Note{On: "a", N: 1}),
		outboxtest.Event(outboxtest.Note{On: "b", N: 1})
	began := s.Begin() // it has the earliest time and transaction id, but inserts last
	if _, err := began.Exec(`SELECT now(), pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	inserted := s.Begin() // it has the lowest seq, but commits late
	s.AppendIn(inserted, early)
	for n := range 3 {
		ids := s.AppendNotes("c", n)
		if got := outboxtest.MessageIDs(s.Receive(s.Queue, 1)); !slices.Equal(got, ids) {
			t.Fatalf("received %v, committed %v", got, ids)
		}
	}
	s.Commit(inserted)
	if got := outboxtest.MessageIDs(s.Receive(s.Queue, 1)); got[0] != early.ID {
		t.Fatalf("received %s, want %s, which committed late", got[0], early.ID)
	}
	s.AppendIn(began, late)
	s.Commit(began)
	if got := outboxtest.MessageIDs(s.Receive(s.Queue, 1)); got[0] != late.ID {
		t.Fatalf("received %s, want %s, whose transaction began first", got[0], late.ID)
	}
}

// OUT-04: the second writer of an aggregate has the lower transaction id, and still comes second.
func TestAggregateOrderIsItsLockOrder(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	second := s.Begin()
	if _, err := second.Exec(`SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	first := s.AppendNotes("a", 1)
	e := outboxtest.Event(outboxtest.Note{On: "a", N: 2})
	s.AppendIn(second, e)
	s.Commit(second)
	s.Run(s.Relay(s.Out)) // both events are in one window
	if got := outboxtest.MessageIDs(s.Receive(s.Queue, 2)); got[0] != first[0] || got[1] != e.ID {
		t.Fatalf("received %v, appended %s then %s", got, first[0], e.ID)
	}
}

// OUT-13: while the relay awaits confirms, it has no open transaction. A slow broker would
// otherwise keep PostgreSQL from removing old versions of rows.
func TestNoTransactionIsOpenWhileConfirmsAreAwaited(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	r := s.Relay(s.Out)
	r.URL = proxy.URL
	s.Run(r)
	s.AppendNotes("a", 1)
	s.Receive(s.Queue, 1)
	s.AwaitSettled()
	const open = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
		AND pid <> pg_backend_pid() AND query NOT LIKE '%outbox_relays%'
			AND (state LIKE 'idle in transaction%' OR backend_xid IS NOT NULL)`
	proxy.Hold(outboxtest.FromBroker) // no confirm arrives any more
	var published []events.Event
	for n := range 300 {
		published = append(published, outboxtest.Event(outboxtest.Note{On: outboxtest.Aggregate(n),
			N: 1}))
	}
	s.Append(published...)
	s.WaitFor("the relay has published", func() bool { return s.Depth(s.Queue) > 0 })
	if n := s.Count(`SELECT count(*) FROM outbox_cursor, outbox
		WHERE pg_visible_in_snapshot(outbox.txid, a)`); n > 1 {
		t.Fatalf("%d rows are settled, although only one was confirmed", n)
	}
	// The leader's other transactions are short. One that awaits confirms would stay open.
	s.WaitFor("no transaction is open while confirms are awaited",
		func() bool { return s.Count(open) == 0 })
	proxy.Release()
	s.Receive(s.Queue, 300)
}

func TestAppendRefusesBeforeItWrites(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	tx := s.Begin()
	big := outboxtest.Note{On: "a", Text: fmt.Sprintf("%0*d", events.MaxSize, 0)}
	if err := s.Out.Append(t.Context(), tx, outboxtest.Event(outboxtest.Note{On: "a", N: 1}),
		outboxtest.Event(big)); !errors.Is(err, events.ErrTooLarge) {
		t.Fatalf("error %v, want %v", err, events.ErrTooLarge)
	}
	if err := s.Out.Append(t.Context(), tx, outboxtest.Event(outboxtest.Note{})); !errors.Is(err,
		events.ErrMalformed) {
		t.Fatalf("error %v, want %v", err, events.ErrMalformed)
	}
	if err := s.Out.Append(t.Context(), tx); err != nil { // no events
		t.Fatal(err)
	}
	s.Commit(tx) // it fails if a statement of the transaction has failed
	if n := s.Count(`SELECT count(*) FROM outbox`); n != 0 {
		t.Fatalf("%d rows were written", n)
	}
}

func TestHistoryIsWhatWasPublishedInOrder(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	ids := s.AppendNotes("a", 1, 2)
	s.AppendNotes("b", 1)
	ids = append(ids, s.AppendNotes("a", 3)...)
	history, err := s.Out.History(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range history {
		got = append(got, r.ID)
	}
	if !slices.Equal(got, ids) || string(history[2].Data) != `{"on":"a","n":3}` ||
		history[2].Source != "/notes" {
		t.Fatalf("history %+v, appended %v", history, ids)
	}
}

// A window with more rows than the relay keeps in memory is read in parts, in order.
func TestLargeWindowIsReadInParts(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	var want []string
	for n := range 5 {
		want = append(want, s.AppendNotes(outboxtest.Aggregate(n%2), 1, 2, 3, 4, 5, 6, 7)...)
	}
	r := s.Relay(s.Out)
	r.LimitWindow(4)
	s.Run(r)
	for i, d := range s.Receive(s.Queue, len(want)) {
		if d.MessageId != want[i] {
			t.Fatalf("event %d is %s, want %s", i, d.MessageId, want[i])
		}
	}
	s.WaitFor("all rows are settled", func() bool { return r.Stats().Published == int64(len(want)) })
}
