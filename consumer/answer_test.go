package consumer_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// answering is a bank whose reaction to an answer is the test's.
func answering(react func(events.Of[consumertest.Inquired]) (consumer.Effects,
	error)) consumer.Handler {
	return consumer.Participant[consumertest.State]{Name: consumertest.Service,
		Locks: func(*consumertest.State, events.Event) {},
		React: []consumer.Reaction[consumertest.State]{
			consumer.On(func(_ *consumertest.State, e events.Of[consumertest.Asked]) (consumer.Effects,
				error) {
				return inquire(e)
			}),
			consumer.On(func(_ *consumertest.State,
				e events.Of[consumertest.Inquired]) (consumer.Effects, error) {
				return react(e)
			}),
		}}.Handler()
}

func inquired(_ context.Context, e events.Of[consumertest.Inquire]) (events.Payload, error) {
	return consumertest.Inquired{Order: e.Data.Order}, nil
}

// A reaction to an answer that hangs is run once for each attempt, and the answers to other calls
// are handled.
func TestReactionToAnAnswerThatHangsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var runs atomic.Int32
	leave := make(chan struct{})
	release := sync.OnceFunc(func() { close(leave) })
	c := w.Consumer(consumertest.Service, nil, consumer.Call(inquired),
		answering(func(e events.Of[consumertest.Inquired]) (consumer.Effects, error) {
			if e.Data.Order == "hangs" {
				runs.Add(1)
				<-leave
			}
			return consumer.Publish(consumertest.Answered{Order: e.Data.Order}), nil
		}))
	c.Bounds.HandlerTimeout = 5 * time.Second
	stop := w.Start(c)
	t.Cleanup(release)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "hangs"},
		consumertest.Asked{Order: "o"}, consumertest.Asked{Order: "p"})
	w.Becomes(2, `SELECT count(*) FROM calls`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE kind = 'call' AND attempts = 1
		AND reason LIKE '%has not returned%'`)
	if n := runs.Load(); n != 1 {
		t.Errorf("the reaction was run %d times for one attempt", n)
	}
	release()
	stop()
	w.Drained()
}

// What a reaction makes of an answer costs attempts of that call only: a refusal and an undeclared
// effect park it at once, a fault or a panic is tried again, and the attempt is known to it.
func TestReactionToAnAnswerThatFails(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var seen journal
	c := w.Consumer(consumertest.Service, nil, consumer.Call(inquired),
		answering(func(e events.Of[consumertest.Inquired]) (consumer.Effects, error) {
			switch e.Data.Order {
			case "refused":
				return consumer.Effects{}, consumer.Refuse(consumer.Conflict, "no %s", e.Data.Order)
			case "undeclared":
				return consumer.Publish(consumertest.Refunded{Order: e.Data.Order}), nil
			case "request": // its topology does not declare that an answer requests a call
				return consumer.Request(consumertest.Inquire{Order: e.Data.Order}), nil
			case "panic":
				panic("answer")
			case "fault":
				return consumer.Effects{}, errors.New("not now")
			}
			return consumer.Publish(consumertest.Answered{Order: e.Data.Order}), nil
		}).With(consumer.Options{Middleware: []consumer.Middleware{seen.named("m")}}))
	stop := w.Start(c)
	for _, order := range []string{"refused", "undeclared", "request", "panic", "fault", "o"} {
		w.PublishAs(consumertest.Shop, consumertest.Asked{Order: order})
	}
	w.Becomes(1, `SELECT count(*) FROM calls WHERE subject = 'o'`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND reason LIKE '%no refused%'`)
	w.Becomes(2, `SELECT count(*) FROM pending WHERE due IS NULL AND reason LIKE '%does not declare%'`)
	w.Becomes(2, `SELECT count(*) FROM pending WHERE due IS NOT NULL AND attempts = 1`)
	w.Exec(`UPDATE pending SET due = now() WHERE due IS NOT NULL`)
	w.Becomes(2, `SELECT count(*) FROM pending WHERE due IS NOT NULL AND attempts = 2`)
	stop()
	again := 0
	for _, line := range seen.sorted() {
		if line == "m: bank.inquired, attempt 2" {
			again++
		}
	}
	if again < 2 {
		t.Errorf("%d reactions know that it is their second attempt: %q", again, seen.sorted())
	}
	if n := w.Int(outboxCount); n != 1 {
		t.Errorf("%d events are published", n)
	}
	w.Drained()
}

// Two replicas whose connections to the database are cut while they claim, call and write down have
// each answer's effect once.
func TestAnswersOfReplicasThatAreCutOffHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	const orders = 60
	for range 2 {
		proxy, url := consumertest.NewProxy(t, w.Postgres)
		c := w.Consumer(consumertest.Service, w.Pool(url), consumer.Call(func(ctx context.Context,
			e events.Of[consumertest.Inquire]) (events.Payload, error) {
			return inquired(ctx, e)
		}), answering(func(e events.Of[consumertest.Inquired]) (consumer.Effects, error) {
			return consumer.Publish(consumertest.Answered{Order: e.Data.Order}), nil
		}))
		c.Bounds = consumer.Bounds{CallWorkers: 3, CallTimeout: time.Second}
		w.Start(c)
		ctx := t.Context()
		go func() { // ends with the test
			ticks := time.NewTicker(150 * time.Millisecond)
			defer ticks.Stop()
			cuts := []consumertest.Cut{consumertest.CutBefore, consumertest.CutAnswer}
			for n := 0; ctx.Err() == nil; n++ {
				proxy.OnCommit(cuts[n/2%2], []string{"calls", "p SET due"}[n%2])
				select {
				case <-ticks.C:
				case <-ctx.Done():
				}
			}
		}()
	}
	for n := range orders {
		w.PublishAs(consumertest.Shop, consumertest.Asked{Order: string(rune('A' + n))})
	}
	w.Becomes(orders, `SELECT count(*) FROM calls`)
	w.Becomes(0, pendingCount)
	if n := w.Int(`SELECT count(*) FROM outbox`); n != orders {
		t.Errorf("%d events of %d answers", n, orders)
	}
}

// An answer that the topology does not declare for its call is not delivered, even if the service
// has a reaction to its type.
func TestAnswerThatIsNotDeclaredIsParked(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	_, stop := w.Bank(inquirer(inquire), consumer.Call(func(_ context.Context,
		e events.Of[consumertest.Inquire]) (events.Payload, error) {
		return consumertest.Expired{Order: e.Data.Order}, nil
	}))
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND reason LIKE '%does not declare%'`)
	stop()
	if n := w.Int(outboxCount); n != 0 {
		t.Errorf("%d events are published", n)
	}
	w.Drained()
}

// A row that another session has locked, and that one answer needs, keeps the answers to other
// calls waiting for a few seconds at most, not for the time-outs of several attempts.
func TestLockThatOneAnswerNeedsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	p := consumer.Participant[consumertest.State]{Name: consumertest.Service,
		Locks: func(s *consumertest.State, e events.Event) {
			if e.Data == events.Payload(consumertest.Inquired{Order: "locked"}) {
				s.Payments.Lock("locked")
			}
		},
		React: []consumer.Reaction[consumertest.State]{
			consumer.On(func(_ *consumertest.State, e events.Of[consumertest.Asked]) (consumer.Effects,
				error) {
				return inquire(e)
			}),
			consumer.On(func(*consumertest.State, events.Of[consumertest.Inquired]) (consumer.Effects,
				error) {
				return consumer.Effects{}, nil
			}),
		}}
	calling := make(chan struct{}, 100)
	stop := w.Start(w.Consumer(consumertest.Service, nil, p.Handler(),
		consumer.Call(func(ctx context.Context, e events.Of[consumertest.Inquire]) (events.Payload,
			error) {
			calling <- struct{}{}
			return inquired(ctx, e)
		})))
	w.Exec(`INSERT INTO payments VALUES ('locked', 'c', 1, 'captured')`)
	tx := w.DB.MustBegin()
	defer func() { _ = tx.Rollback() }()
	tx.MustExec(`SELECT FROM payments FOR UPDATE`)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "locked"})
	<-calling
	began := time.Now()
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM calls WHERE subject = 'o'`)
	// With the lock time-out of an ordinary transaction, 10 s, two attempts would take 20 s.
	if d := time.Since(began); d > 15*time.Second {
		t.Errorf("the other answer was handled after %s", d)
	}
	if n := w.Int(`SELECT count(*) FROM pending WHERE kind = 'call' AND attempts = 0`); n != 1 {
		t.Error("the lock cost an attempt")
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	w.Becomes(0, pendingCount)
	stop()
	w.Drained()
}
