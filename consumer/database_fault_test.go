package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// A table that somebody has locked costs no event an attempt, and what needs another table goes on.
func TestLockedTableCostsNoAttempt(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	tx, err := w.DB.Beginx()
	if err == nil {
		_, err = tx.Exec(`LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE`)
	}
	if err == nil { // the session may hold it for as long as the test takes
		_, err = tx.Exec(`SET LOCAL idle_in_transaction_session_timeout = 0`)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	const count = 2 * 40
	for i := range count / 2 {
		w.PublishAs(consumertest.Shop, consumertest.Placed{Order: fmt.Sprint(i), Customer: "ada",
			Amount: 1}, consumertest.Reminded{Order: fmt.Sprint("r", i)})
	}
	c, stop := w.Bank(note("bank"))
	w.Becomes(count/2, overdueCount) // deadlines that need the other table come in time
	w.Becomes(count/2, `SELECT count(*) FROM pending WHERE type = 'order.placed' AND attempts = 0
		AND due IS NOT NULL AND reason LIKE '%lock timeout%' AND updated_at > created_at`)
	if n := w.Int(`SELECT count(*) FROM pending WHERE attempts > 0`); n != 0 {
		t.Errorf("%d events have spent an attempt: %s", n, w.Diagnosis())
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	w.Becomes(count/2, `SELECT count(*) FROM payments`)
	w.Becomes(0, pendingCount)
	stop()
	w.Drained()
	if s := c.Stats(); s.Parked != 0 {
		t.Errorf("stats %+v", s)
	}
}

// An error that says when to try again, such as one about what a newer release has stored, costs no
// attempt in a reaction either.
func TestErrorWithRetryAfterCostsNoAttempt(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var failing atomic.Bool
	failing.Store(true)
	var tries atomic.Int64
	handler := consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		if tries.Add(1); failing.Load() {
			return consumer.RetryAfter(errors.New("stored by a newer release"), time.Millisecond)
		}
		return insertNote(ctx, tx, "bank", e)
	})
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), handler)
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
	w.Eventually("it is tried more often than it could be with attempts", func() (bool, string) {
		return tries.Load() > 2*consumer.MaxAttempts, w.Diagnosis()
	})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 0`)
	failing.Store(false)
	w.Becomes(1, notesCount)
	w.Becomes(0, pendingCount)
	stop()
	w.Drained()
}

// A deadline runs by the database's clock: a replica whose clock is wrong neither hurries nor
// delays it, and an event that says a wrong time does not either.
func TestDeadlinesRunByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	for _, skew := range []time.Duration{-20 * time.Minute, 20 * time.Minute} {
		e := consumertest.Event(consumertest.Shop, consumertest.Reminded{Order: fmt.Sprint(skew)})
		e.Time = time.Now().Add(skew)
		e.Data = consumertest.Reminded{Order: fmt.Sprint(skew), At: e.Time.Add(15 * time.Minute)}
		w.Publish(w.Message(e))
	}
	_, stop := w.Bank(note("bank"))
	w.Becomes(2, `SELECT count(*) FROM pending WHERE type = 'order.expired'
		AND due - created_at BETWEEN interval '14 minutes 59 seconds' AND interval '15 minutes 1 second'`)
	stop()
	w.Drained()
	if n := w.Int(outboxCount); n != 0 {
		t.Errorf("%d deadlines were delivered at once", n)
	}
}

// A message that the driver cannot decode is parked, and what is behind it is handled; the consumer
// is healthy.
func TestMessageThatTheDriverCannotDecodeIsParked(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	deep := amqp.Table{}
	for range 40 {
		deep = amqp.Table{"t": deep}
	}
	var messages []rabbit.Message
	for i := range 21 {
		m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: fmt.Sprint(i)}))
		if i == 0 {
			m.Headers["deep"] = deep
		}
		messages = append(messages, m)
	}
	w.Publish(messages...)
	c, stop := w.Bank(note("bank"))
	w.Becomes(20, notesCount)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL
		AND reason LIKE 'malformed event: headers: %' AND attributes->>'id' = $1`, messages[0].MessageId)
	if err := c.Healthy(); err != nil {
		t.Error(err)
	}
	stop()
	w.Drained()
}

// A consumer whose sessions cannot begin says why, and counts them by their cause.
func TestConsumerThatCannotConsumeReportsIt(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), note("bank"))
	c.Topology.Name = "another" // of which nothing was declared
	c.Ready = func(s *rabbit.Session) error { return s.CheckApplied(c.Topology) }
	if c.Healthy() == nil {
		t.Error("it has not begun, and says nothing")
	}
	stop := w.Start(c)
	w.Eventually("it is told", func() (bool, string) {
		return errors.Is(c.Healthy(), rabbit.ErrNotApplied) && c.SessionEnds()["topology"] > 0,
			fmt.Sprint(c.Healthy(), c.SessionEnds())
	})
	if err := rabbit.Apply(t.Context(), w.AMQP, c.Topology); err != nil {
		t.Fatal(err)
	}
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
	w.Becomes(1, notesCount)
	w.Eventually("it is over", func() (bool, string) {
		return c.Healthy() == nil,
			fmt.Sprint(c.Healthy())
	})
	stop()
}
