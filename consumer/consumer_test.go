package consumer_test

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// note writes one row of the table notes for each event, so that an effect that happens twice
// shows.
func note(name string) consumer.Handler {
	return consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		return insertNote(ctx, tx, name, e)
	})
}

const (
	inboxCount   = `SELECT count(*) FROM inbox`
	outboxCount  = `SELECT count(*) FROM outbox`
	notesCount   = `SELECT count(*) FROM notes`
	pendingCount = `SELECT count(*) FROM pending`
	parkedCount  = `SELECT count(*) FROM pending WHERE due IS NULL`
)

func TestAnEventTakesEffectIsAnsweredAndAcknowledged(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	c, stop := w.Bank(note("bank"))
	published := w.PublishAs(consumertest.Shop, consumertest.Placed{Order: "o1", Customer: "anna",
		Amount: 30}, consumertest.Noted{Order: "o1", Text: "fragile"})
	w.Becomes(1, `SELECT count(*) FROM payments WHERE order_id = 'o1' AND status = 'captured'
		AND amount = 30`)
	w.Becomes(1, `SELECT count(*) FROM accounts WHERE customer = 'anna' AND balance = -30`)
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'fragile' AND event_id = $1`,
		published[1].ID)
	w.Becomes(2, inboxCount)
	stop()
	w.Drained()
	history, err := w.Outbox.History(t.Context(), "o1")
	if err != nil || len(history) != 1 {
		t.Fatalf("said %v, %v", history, err)
	}
	answer := history[0]
	if answer.Type != "payment.captured" || answer.CausationID != published[0].ID ||
		answer.CorrelationID != published[0].CorrelationID || answer.Source != "/bank" {
		t.Errorf("answer %+v to %+v", answer, published[0])
	}
	if s := c.Stats(); s.Handled != 2 || s.Duplicates+s.Delayed+s.Parked != 0 {
		t.Errorf("stats %+v", s)
	}
}
