package consumer_test

import (
	"context"
	"errors"
	"testing"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// inquirer is a participant that requests a call because of an event and passes its answer on.
func inquirer(asked func(events.Of[consumertest.Asked]) (consumer.Effects,
	error)) consumer.Handler {
	p := consumer.Participant[consumertest.State]{Name: consumertest.Service,
		Locks: func(*consumertest.State, events.Event) {},
		React: []consumer.Reaction[consumertest.State]{
			consumer.On(func(_ *consumertest.State, e events.Of[consumertest.Asked]) (consumer.Effects,
				error) {
				return asked(e)
			}),
			consumer.On(func(_ *consumertest.State,
				e events.Of[consumertest.Inquired]) (consumer.Effects, error) {
				return consumer.Publish(consumertest.Answered{Order: e.Data.Order}), nil
			}),
		}}
	return p.Handler()
}

func inquire(e events.Of[consumertest.Asked]) (consumer.Effects, error) {
	return consumer.Request(consumertest.Inquire{Order: e.Data.Order}), nil
}

// A request of a reaction is called after the commit, under one idempotency key however often, and
// its answer is handled once, caused by the call. The history of calls keeps it.
func TestARequestIsCalledAndItsAnswerIsHandled(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var keys []string // one call at a time
	c, stop := w.Bank(inquirer(inquire), consumer.Call(func(_ context.Context,
		e events.Of[consumertest.Inquire]) (events.Payload, error) {
		if keys = append(keys, e.ID); len(keys) == 1 {
			return nil, errors.New("not now")
		}
		return consumertest.Inquired{Order: e.Data.Order}, nil
	}))
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Asked{Order: "o"}))
	w.Publish(m, m)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE kind = 'call' AND attempts = 1
		AND reason LIKE '%not now%'`)
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	w.Publish(m) // a late duplicate requests nothing
	w.Eventually("two duplicates", func() (bool, string) {
		return c.Stats().Duplicates == 2, w.Diagnosis()
	})
	stop()
	w.Drained()
	if len(keys) != 2 || keys[0] != keys[1] || keys[0] == m.Publishing.MessageId {
		t.Errorf("called with the keys %v, because of %s", keys, m.Publishing.MessageId)
	}
	history, err := w.Outbox.History(t.Context(), "o")
	if err != nil || len(history) != 1 || history[0].CausationID != keys[0] {
		t.Errorf("published %+v, want one event because of %s (%v)", history, keys[0], err)
	}
	if n := w.Int(`SELECT count(*) FROM calls WHERE id = $1::uuid AND causation_id = $2
		AND subject = 'o'
		AND attempts = 1 AND answer_type = 'bank.inquired'`, keys[0], m.Publishing.MessageId); n != 1 {
		t.Errorf("%d calls in the history", n)
	}
	if n := w.Int(pendingCount); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// What a reaction that is rolled back has requested is not called, nor what its topology does not
// declare; and an event that is refused is parked at once.
func TestARequestThatDoesNotCommitIsNotCalled(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	_, stop := w.Bank(inquirer(func(e events.Of[consumertest.Asked]) (consumer.Effects, error) {
		switch e.Data.Order {
		case "undeclared":
			return consumer.Request(consumertest.Inquired{Order: "x"}), nil
		case "refused":
			return consumer.Effects{}, consumer.Refuse(consumer.Conflict, "no %s", e.Data.Order)
		}
		effects, _ := inquire(e)
		return effects, errors.New("too late")
	}), consumer.Call(func(context.Context, events.Of[consumertest.Inquire]) (events.Payload, error) {
		t.Error("called")
		return nil, nil
	}))
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"},
		consumertest.Asked{Order: "undeclared"}, consumertest.Asked{Order: "refused"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NOT NULL AND attempts = 1
		AND reason LIKE '%too late%'`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL
		AND reason LIKE '%no Call handler%'`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND reason LIKE '%no refused%'`)
	stop()
	if n := w.Int(`SELECT count(*) FROM pending WHERE kind = 'call'`); n != 0 {
		t.Errorf("%d requests", n)
	}
	w.Drained()
}
