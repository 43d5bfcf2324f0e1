package consumer_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

const openTransactions = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
	AND xact_start IS NOT NULL AND pid <> pg_backend_pid()`

// An outside call holds no transaction, neither at first nor when it is made again, gets the same
// event id each time, and its answer is said once.
func TestACallHoldsNoTransactionAndIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var ids []string // one call at a time
	calling, leave := make(chan struct{}), make(chan struct{})
	c := w.Consumer(consumertest.Service, nil,
		consumer.Call(func(ctx context.Context, e events.Of[consumertest.Asked]) (events.Payload, error) {
			ids = append(ids, e.ID, consumer.CauseOf(ctx).ID)
			calling <- struct{}{}
			<-leave
			if len(ids) < 6 {
				return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
			}
			return consumertest.Answered{Order: e.Data.Order}, nil
		}))
	stop := w.Start(c)
	e := w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})[0]
	for n := range 3 {
		<-calling
		// The other loops of the consumer use transactions too, but none that lasts as long as the call.
		w.Becomes(0, openTransactions)
		leave <- struct{}{}
		if n < 2 {
			w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = $1 AND reason LIKE '%refused%'
				AND due > now()`, n+1)
			w.Exec(`UPDATE pending SET due = now()`)
		}
	}
	w.Becomes(0, pendingCount)
	stop()
	w.Drained()
	for _, id := range ids {
		if id != e.ID {
			t.Errorf("called with the ids %v, want %s", ids, e.ID)
		}
	}
	history, err := w.Outbox.History(t.Context(), "o")
	if err != nil || len(history) != 1 || history[0].CausationID != e.ID ||
		history[0].Type != "question.answered" {
		t.Errorf("said %+v, %v", history, err)
	}
}

// Copies of an event on two replicas make one call, and its answer is said once.
func TestACallOnTwoReplicasIsMadeOnce(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var calls atomic.Int32
	ask := consumer.Call(func(_ context.Context, e events.Of[consumertest.Asked]) (events.Payload,
		error) {
		calls.Add(1)
		return consumertest.Answered{Order: e.Data.Order}, nil
	})
	first, second := w.Consumer(consumertest.Service, nil, ask), w.Consumer(consumertest.Service, nil,
		ask)
	stopFirst, stopSecond := w.Start(first), w.Start(second)
	w.Consumers("bank.in", 2)
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Asked{Order: "o"}))
	w.Publish(m, m)
	w.Eventually("both came", func() (bool, string) {
		a, b := first.Stats(), second.Stats()
		return a.Handled+b.Handled == 1 && a.Duplicates+b.Duplicates == 1, w.Diagnosis()
	})
	w.Publish(m) // long after
	w.Eventually("a third came", func() (bool, string) {
		return first.Stats().Duplicates+second.Stats().Duplicates == 2, w.Diagnosis()
	})
	stopFirst()
	stopSecond()
	if n := w.Int(outboxCount); n != 1 || calls.Load() != 1 {
		t.Errorf("%d answers to %d calls, want one", n, calls.Load())
	}
	w.Drained()
}

// While calls hang, what comes for the same subject goes on: a call is never made in a lane.
func TestAHangingCallHoldsUpNoLane(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	leave := make(chan struct{})
	_, stop := w.Bank(note("bank"), consumer.Call(func(_ context.Context,
		e events.Of[consumertest.Asked]) (events.Payload, error) {
		<-leave
		return consumertest.Answered{Order: e.Data.Order}, nil
	}))
	var published []events.Payload
	for range 2 * consumer.CallWorkers {
		published = append(published, consumertest.Asked{Order: "o"}, consumertest.Noted{Order: "o"})
	}
	w.PublishAs(consumertest.Shop, published...)
	w.Becomes(2*consumer.CallWorkers, notesCount)
	close(leave)
	w.Becomes(2*consumer.CallWorkers, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	stop()
	w.Drained()
}

// A call that is not made, since a breaker is open, costs no attempt however often, and waits as
// long as it says.
func TestACallThatIsNotMadeCostsNoAttempt(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var calls atomic.Int32
	_, stop := w.Bank(consumer.Call(func(_ context.Context,
		e events.Of[consumertest.Asked]) (events.Payload, error) {
		if calls.Add(1) <= 2*consumer.MaxAttempts {
			return nil, consumer.RetryAfter(errors.New("the breaker is open"), time.Hour)
		}
		return consumertest.Answered{Order: e.Data.Order}, nil
	}))
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	for n := range 2 * consumer.MaxAttempts {
		w.Eventually("another try", func() (bool, string) {
			return int(calls.Load()) == n+1,
				w.Diagnosis()
		})
		w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 0 AND reason = 'the breaker is open'
			AND due - now() BETWEEN interval '59 minutes' AND interval '91 minutes'`)
		w.Exec(`UPDATE pending SET due = now()`)
	}
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	stop()
	w.Drained()
}

// An answer that the topology does not declare is refused, at the first call and at a later one.
func TestACallMayPublishOnlyWhatIsDeclared(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var calls atomic.Int32
	c := w.Consumer(consumertest.Service, nil,
		consumer.Call(func(_ context.Context, e events.Of[consumertest.Asked]) (events.Payload, error) {
			switch {
			case e.Data.Order == "silent":
				return nil, nil
			case e.Data.Order == "at once" || calls.Add(1) > 1:
				return consumertest.Refunded{Order: e.Data.Order}, nil // the bank says it, but not about this
			}
			panic("not now")
		}))
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "silent"},
		consumertest.Asked{Order: "at once"}, consumertest.Asked{Order: "again"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND attempts = 1
		AND reason LIKE '%does not declare%'`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NOT NULL AND attempts = 1
		AND reason LIKE '%not now%'`)
	w.Exec(`UPDATE pending SET due = now() WHERE due IS NOT NULL`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND attempts = 2
		AND reason LIKE '%does not declare%'`)
	w.Becomes(3, inboxCount)
	stop()
	w.Drained()
	if n := w.Int(outboxCount); n != 0 {
		t.Errorf("%d answers were said", n)
	}
}

// An answer that cannot be said costs an attempt of the call, instead of calling for ever.
func TestAnAnswerThatCannotBePublishedIsAFailure(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var calls atomic.Int32
	c := w.Consumer(consumertest.Service, nil,
		consumer.Call(func(context.Context, events.Of[consumertest.Asked]) (events.Payload, error) {
			if calls.Add(1) == 1 {
				return nil, errors.New("not now")
			}
			return consumertest.Answered{}, nil // has no subject
		}))
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1`)
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND attempts = 2
		AND reason LIKE '%no subject%'`)
	stop()
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}
}

// A slow call that is made again keeps no deadline waiting, and a replica that dies in it leaves it
// to others once its lease is over.
func TestASlowCallKeepsNoDeadlineWaiting(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var calls atomic.Int32
	calling, leave := make(chan struct{}), make(chan struct{})
	_, stop := w.Bank(consumer.Call(func(_ context.Context,
		e events.Of[consumertest.Asked]) (events.Payload, error) {
		switch calls.Add(1) {
		case 1:
			return nil, errors.New("not now")
		case 2:
			close(calling)
			<-leave
		}
		return consumertest.Answered{Order: e.Data.Order}, nil
	}))
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1`)
	w.Exec(`UPDATE pending SET due = now()`)
	<-calling
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due > now() + interval '10 seconds'`) // leased
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "p", At: time.Now()})
	w.Becomes(1, overdueCount)
	w.Exec(`UPDATE pending SET due = now()`) // the lease is over, as if this replica were dead
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	close(leave)
	stop()
	if n := w.Int(`SELECT count(*) FROM outbox WHERE type = 'question.answered'`); n != 1 {
		t.Errorf("%d answers", n)
	}
	if n := w.Int(pendingCount); n != 0 {
		t.Errorf("%d are left", n)
	}
	w.Drained()
}

// Whatever panics in a call, its answer too, is a failure of this call and of nothing else.
func TestACallThatPanicsHarmsItselfOnly(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	_, stop := w.Bank(consumer.Call(func(_ context.Context,
		e events.Of[consumertest.Asked]) (events.Payload, error) {
		if e.Data.Order == "nil" {
			var answer *consumertest.Answered // not nil to who looks at the interface
			return answer, nil
		}
		return consumertest.Answered{Order: e.Data.Order}, nil
	}))
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "nil"}, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1 AND reason LIKE '%panic%'`)
	stop()
}

// A call that fails after its lease was over changes nothing about what another replica has
// decided.
func TestALateFailureChangesNothing(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	calling, leave := make(chan struct{}), make(chan struct{})
	c, stop := w.Bank(consumer.Call(func(context.Context,
		events.Of[consumertest.Asked]) (events.Payload, error) {
		close(calling)
		<-leave
		return nil, errors.New("too late")
	}))
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	<-calling
	w.Exec(`UPDATE pending SET due = NULL, attempts = 10, reason = 'parked by another'`)
	close(leave)
	stop()
	if n := w.Int(`SELECT count(*) FROM pending WHERE due IS NULL AND attempts = 10
		AND reason = 'parked by another'`); n != 1 {
		t.Error("it is not parked any more")
	}
	if s := c.Stats(); s.Delayed+s.Parked != 0 {
		t.Errorf("stats %+v", s)
	}
}
