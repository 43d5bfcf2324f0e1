package consumer_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// Calls that may not be made yet, since the concurrency of their handler is reached, keep no worker
// and no call of another type waiting, however many are due.
func TestCallsBeyondTheirConcurrencyHoldUpNoOther(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var running, most, called atomic.Int32
	leave := make(chan struct{})
	release := sync.OnceFunc(func() { close(leave) })
	c := w.Consumer(consumertest.Service, nil,
		consumer.Call(func(context.Context, events.Of[consumertest.Asked]) (events.Payload, error) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			called.Add(1)
			<-leave
			return nil, nil
		}).With(consumer.Options{Concurrency: 1}),
		consumer.Call(func(context.Context, events.Of[consumertest.Noted]) (events.Payload, error) {
			return nil, nil
		}))
	c.Bounds = consumer.Bounds{CallWorkers: 4}
	stop := w.Start(c)
	t.Cleanup(release)
	const waiting = 40
	var payloads []events.Payload
	for i := range waiting {
		payloads = append(payloads, consumertest.Asked{Order: fmt.Sprint(i)})
	}
	w.PublishAs(consumertest.Shop, payloads...)
	w.Becomes(waiting, `SELECT count(*) FROM pending WHERE type = 'order.asked'`)
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "n"})
	w.Becomes(1, `SELECT count(*) FROM calls WHERE type = 'order.noted'`)
	if n := called.Load(); n != 1 {
		t.Errorf("%d calls of the bounded type", n)
	}
	release()
	w.Becomes(waiting, `SELECT count(*) FROM calls WHERE type = 'order.asked'`)
	stop()
	if n := most.Load(); n != 1 {
		t.Errorf("%d at a time", n)
	}
	w.Drained()
}

// A call may have a longer time-out than the others, and is not repeated before it is over.
func TestCallHasTheTimeoutOfItsHandler(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var left time.Duration
	calling, leave := make(chan struct{}), make(chan struct{})
	c := w.Consumer(consumertest.Service, nil,
		consumer.Call(func(ctx context.Context, _ events.Of[consumertest.Asked]) (events.Payload, error) {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			close(calling)
			<-leave
			return nil, nil
		}).With(consumer.Options{Timeout: time.Hour}))
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	<-calling
	if left < 50*time.Minute {
		t.Errorf("the call may take %s", left)
	}
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due > now() + interval '50 minutes'`)
	close(leave)
	w.Becomes(0, pendingCount)
	stop()
	w.Drained()
}

// A call whose event was parked under a hash, since this release did not know its major version, is
// made after the upgrade, and its history has the id of the event.
func TestCallOfAnEventThatWasParkedUnderAHash(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	_, stop := w.Bank(consumer.Call(func(context.Context,
		events.Of[consumertest.Noted]) (events.Payload, error) {
		t.Error("called by a release that does not know the event")
		return nil, nil
	}))
	e := consumertest.Event(consumertest.Shop, remarked{Order: "o", Words: "w"})
	w.Publish(w.Message(e))
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND key LIKE 'sha256:%'`)
	stop()
	var calls atomic.Int32
	_, stop = w.Bank(consumer.Call(func(_ context.Context, e events.Of[remarked]) (events.Payload,
		error) {
		calls.Add(1)
		return nil, nil
	}))
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(1, `SELECT count(*) FROM calls WHERE id = $1::uuid AND subject = 'o'`, e.ID)
	stop()
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// Old calls are deleted however many there are: the history of a busy service does not grow.
func TestOldCallsAreDeletedHoweverMany(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.Exec(`INSERT INTO calls (consumer, owner, id, type, subject, correlation_id, causation_id,
		request,
			attempts, answer_type, requested_at, answered_at)
		SELECT 'bank', 'bank', gen_random_uuid(), 't', 's', '', '', '', 0, '', now(),
			now() - n * interval '15 days' FROM generate_series(0, 100000) AS n`)
	_, stop := w.Bank()
	w.Becomes(1, `SELECT count(*) FROM calls`)
	stop()
}

// With every bound at its least a service still does all of its work.
func TestLeastBoundsDoTheWork(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	c := w.Consumer(consumertest.Service, nil, inquirer(inquire), consumer.Call(inquired))
	c.Bounds = consumer.Bounds{Lanes: 1, BatchMax: 1, Prefetch: 1, CallWorkers: 1}
	stop := w.Start(c)
	for n := range 20 {
		w.PublishAs(consumertest.Shop, consumertest.Asked{Order: fmt.Sprint(n)})
	}
	w.Becomes(20, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	stop()
	w.Drained()
}

// A deadline of a type that has become a call has no id to call with: it is parked, and not called.
func TestDeadlineIsNeverCalled(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.Exec(`INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes,
			body, attempts, due, reason)
		VALUES ('bank', 'bank', 'bank.inquire:o', 'deadline', 'bank.inquire', '', '',
			'{"type": "bank.inquire", "subject": "o"}', '{"order": "o"}', 0, now(), '')`)
	_, stop := w.Bank(consumer.Call(func(context.Context,
		events.Of[consumertest.Inquire]) (events.Payload, error) {
		t.Error("called")
		return nil, nil
	}))
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL
		AND reason LIKE '%no id to call with%'`)
	stop()
}
