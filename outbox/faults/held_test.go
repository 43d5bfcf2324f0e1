package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// PUB-01: an ack does not mean that a queue has the message: the broker also acknowledges messages
// that it has dropped.
func TestUnroutableEventIsHeldUntilAQueueIsBound(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := s.Relay(s.Out)
	r.Mandatory = outboxtest.IsOrphan
	s.Run(r)
	lost := outboxtest.Event(outboxtest.Orphan{On: "a"})
	s.Append(lost, outboxtest.Event(outboxtest.Note{On: "b", N: 1}))
	s.Receive(s.Queue, 1)
	s.WaitFor("the event is held",
		func() bool { return slices.Equal(s.HeldIDs(`h.reason LIKE 'unroutable%'`), []string{lost.ID}) })
	s.WaitFor("Stats counts the held event",
		func() bool {
			s := r.Stats()
			return s.Held == 1 && s.Published == 1 && s.Leading && s.Unroutable > 0
		})
	s.Bind(s.Queue, "orphan.born")
	if got := s.Receive(s.Queue, 1); got[0].MessageId != lost.ID {
		t.Fatalf("received %s, want the held event %s", got[0].MessageId, lost.ID)
	}
	s.WaitFor("nothing is held", func() bool {
		return r.Stats().Held == 0 &&
			s.Count(`SELECT count(*) FROM outbox_held`) == 0
	})
}

// PUB-04, OUT-12: nacked events are held and published again. From MaxHeld refused rows on, the
// cursor stops and attempts are not counted.
func TestFullQueueStopsTheCursorAndDrains(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.DeclareQueue("small", amqp.Table{"x-max-length": 10, "x-overflow": "reject-publish"})
	s.Bind("small", "orphan.born")
	var published []events.Event
	for n := range outbox.MaxHeld + 1500 {
		published = append(published, outboxtest.Event(outboxtest.Orphan{On: outboxtest.Aggregate(n)}))
	}
	s.Append(published...)
	s.Append(outboxtest.Event(outboxtest.Note{On: "z", N: 1})) // its own queue is not full
	r := s.Relay(s.Out)
	s.Run(r)
	s.WaitFor("the broker counts as broken", func() bool { return r.Stats().Held >= outbox.MaxHeld })
	// attempts before the broker counted as broken
	spent := s.Count(`SELECT coalesce(max(attempts), 1) FROM outbox_held`)
	stoppedAt := s.Count(`SELECT extract(epoch FROM now())::bigint`)
	s.WaitFor("the held rows were published again", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_held
			WHERE due > to_timestamp($1) + interval '2 seconds'`, stoppedAt) >= 100
	})
	if n := s.Count(`SELECT max(attempts) FROM outbox_held`); n > spent {
		t.Errorf("a broken broker costs attempts: %d, were %d", n, spent)
	}
	if n := s.Count(`SELECT count(*) FROM outbox_held`); n > outbox.MaxHeld+rabbit.MaxInFlight {
		t.Errorf("%d rows are held: the cursor did not stop", n)
	}
	s.Await("small", outboxtest.EventIDs(published))
	s.Receive(s.Queue, 1)
	s.WaitFor("nothing is held",
		func() bool { return s.Count(`SELECT count(*) FROM outbox_held`) == 0 })
}

// OUT-11: rows that the broker, the protocol or the relay can never accept.
func TestRowThatCannotBePublishedIsQuarantined(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	var want, bad []string
	for n := range 40 {
		want = append(want, s.AppendNotes(outboxtest.Aggregate(n), 1)...)
	}
	bad = append(bad, s.InsertRaw("big", "note.taken", outboxtest.TooBig(), outboxtest.PlainHeaders),
		s.InsertRaw("frame", "note.taken", `{}`,
			fmt.Sprintf(`{"dataschema":"%s","time":"2026-01-02T03:04:05Z"}`, strings.Repeat("s", 200_000))),
		s.InsertRaw("property", "note.taken", `{}`,
			fmt.Sprintf(`{"source":"/%s","time":"2026-01-02T03:04:05Z"}`, strings.Repeat("s", 300))),
		s.InsertRaw("key", strings.Repeat("k", 300), `{}`, outboxtest.PlainHeaders),
		s.InsertRaw("headers", "note.taken", `{}`, `[]`),
		s.InsertRaw("aggregate-3", "note.taken", outboxtest.TooBig(), outboxtest.PlainHeaders))
	behind := s.AppendNotes("big", 2, 3) // they wait behind the first bad row
	for n := range 40 {
		want = append(want, s.AppendNotes(outboxtest.Aggregate(n+100), 1)...)
	}
	r := s.Relay(s.Out)
	s.Run(r)
	s.Await(s.Queue, want)
	s.WaitFor("the bad rows are quarantined",
		func() bool { return slices.Equal(s.HeldIDs(outboxtest.QuarantinedSQL), bad) })
	if held := s.HeldIDs(`NOT (` + outboxtest.QuarantinedSQL + `)`); !slices.Equal(held, behind) {
		t.Errorf("rows %v wait behind the bad ones, want %v", held, behind)
	}
	s.Await(s.Queue, s.AppendNotes("after", 1)) // the relay still publishes
}

// A row that ends the session may be held already when it is published for the first time.
func TestHeldRowThatCannotBePublishedIsQuarantined(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := s.Relay(s.Out)
	r.Mandatory = outboxtest.IsOrphan
	first := outboxtest.Event(outboxtest.Orphan{On: "a"})
	s.Append(first)
	bad := s.InsertRaw("a", "note.taken", outboxtest.TooBig(), outboxtest.PlainHeaders)
	other := outboxtest.Event(outboxtest.Orphan{On: "b"})
	s.Append(other)
	s.Run(r)
	s.WaitFor("all three rows are held", func() bool { return len(s.HeldIDs(`true`)) == 3 })
	s.Bind(s.Queue, "orphan.born")
	s.WaitFor("the bad row is quarantined and the others are published", func() bool {
		return slices.Equal(s.HeldIDs(`true`), []string{bad}) &&
			slices.Equal(s.HeldIDs(outboxtest.QuarantinedSQL), []string{bad})
	})
	s.Await(s.Queue, s.AppendNotes("after", 1)) // the relay still publishes
}

// OUT-10: in one batch, one row is nacked, one is returned as unroutable, and one ends the session.
func TestMixedBatchSettlesEachRowSeparately(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.DeclareQueue("full", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	if err := s.Admin.QueueBind("full", "full.up", outboxtest.Exchange, false, nil); err != nil {
		t.Fatal(err)
	}
	filler := amqp.Publishing{Body: []byte("filler")}
	for range 10 {
		if err := s.Admin.Publish(outboxtest.Exchange, "full.up", false, false, filler); err != nil {
			t.Fatal(err)
		}
	}
	s.WaitFor("the queue is full", func() bool { return s.Depth("full") > 1 })
	var want []string
	var returned, nacked, killer string
	for n := range 100 {
		switch on := outboxtest.Aggregate(n); n {
		case 37:
			returned = s.InsertRaw(on, "orphan.born", `{}`, outboxtest.PlainHeaders)
		case 50:
			nacked = s.InsertRaw(on, "full.up", `{}`, outboxtest.PlainHeaders)
		case 80:
			killer = s.InsertRaw(on, "note.taken", outboxtest.TooBig(), outboxtest.PlainHeaders)
		default:
			want = append(want, s.AppendNotes(on, 1)...)
		}
	}
	r := s.Relay(s.Out)
	r.Mandatory = outboxtest.IsOrphan
	s.Run(r)
	s.Await(s.Queue, want)
	s.WaitFor("exactly these three rows are held", func() bool {
		return slices.Equal(s.HeldIDs(`true`), []string{returned, nacked, killer}) &&
			slices.Equal(s.HeldIDs(outboxtest.QuarantinedSQL), []string{killer})
	})
	s.Bind(s.Queue, "orphan.born")
	s.Await(s.Queue, []string{returned})
	s.Await("full", []string{nacked}) // this also removes the fillers
}

// A row that came from a stream may be held before queries see it. It waits, and other rows do not.
func TestHeldRowNotYetVisibleWaits(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Exec(`INSERT INTO outbox_held (seq, aggregate, reason, attempts, due) VALUES (3, 'late',
		'refused', 1, now())`)
	r := s.Relay(s.Out)
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("b", 1, 2))
	s.WaitFor("the row is held", func() bool { return r.Stats().Held == 1 })
	s.Await(s.Queue, s.AppendNotes("late", 1))
	s.WaitFor("nothing is held", func() bool { return r.Stats().Held == 0 })
}
