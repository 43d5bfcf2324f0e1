package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// rulebreaker is a middleware that breaks its rules for some subjects.
func rulebreaker(next consumer.Next) consumer.Next {
	return func(ctx context.Context, e events.Event) error {
		switch e.Data.Subject() {
		case "never":
			return nil
		case "twice":
			_ = next(ctx, e)
			return next(ctx, e)
		case "panic":
			panic("middleware")
		case "changed":
			e.ID, e.Data = events.NewID(), consumertest.Overdue{Order: "x"}
		}
		return next(ctx, e)
	}
}

// Middleware that does not call next, or calls it twice, can neither lose an event or a call nor
// have it take effect twice: the event is parked. What it changes other than the trace has no
// effect.
func TestCarelessMiddlewareNeitherLosesNorDoubles(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(),
		consumer.Handle(func(ctx context.Context, tx *sqlx.Tx, e events.Of[consumertest.Noted]) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO notes (consumer, event_id, text)
				VALUES ('bank', $1, $2)`, e.ID, e.Data.Order)
			return err
		}),
		consumer.Call(func(context.Context, events.Of[consumertest.Asked]) (events.Payload, error) {
			return nil, nil
		}))
	c.Middleware = []consumer.Middleware{rulebreaker}
	stop := w.Start(c)
	for _, subject := range []string{"never", "twice", "panic", "changed"} {
		w.PublishAs(consumertest.Shop, consumertest.Noted{Order: subject},
			consumertest.Placed{Order: subject, Customer: subject, Amount: 1},
			consumertest.Asked{Order: subject})
	}
	w.Becomes(6, `SELECT count(*) FROM pending WHERE due IS NULL
		AND reason LIKE '%middleware called next%'`)
	w.Becomes(3, `SELECT count(*) FROM pending WHERE attempts = 1 AND reason LIKE '%panic%'`)
	w.Becomes(1, `SELECT count(*) FROM notes`)
	w.Becomes(1, `SELECT count(*) FROM payments`)
	w.Becomes(1, `SELECT count(*) FROM calls`)
	stop()
	if n := w.Int(
		`SELECT count(*) FROM notes AS n JOIN inbox AS i ON i.event_id = n.event_id`); n != 1 {
		t.Error("the handler got another id")
	}
	w.Drained()
}

// A statement that is cancelled because the time-out of its handler is over costs an attempt of
// this event: the database is not to blame.
func TestStatementCutByTheTimeoutOfItsHandlerCostsAnAttempt(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	_, stop := w.Bank(consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		_ events.Of[consumertest.Noted]) error {
		_, err := tx.ExecContext(ctx, `SELECT pg_sleep(60)`)
		return err
	}).With(consumer.Options{Timeout: 100 * time.Millisecond}))
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1`)
	stop()
	w.Drained()
}
