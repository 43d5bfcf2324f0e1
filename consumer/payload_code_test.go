package consumer_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
)

// faulty is an error whose methods do what no method of an error should do.
type faulty struct {
	text, after, as func()
}

func (f *faulty) Error() string { f.text(); return "faulty" } // a nil pointer in an error panics
func (f *faulty) RetryAfter() time.Duration {
	f.after()
	return time.Hour
}

func (f *faulty) As(any) bool { f.as(); return false }

// An error of a handler, a reaction or a call whose own methods panic, end their goroutine or hang
// costs its event an attempt like any other error.
func TestErrorWhoseMethodsFailCostsItsOwnEventOnly(t *testing.T) {
	t.Parallel()
	released := make(chan struct{})
	none := func() {}
	for name, failure := range map[string]*faulty{
		"nil pointer":      nil,
		"text panics":      {func() { panic("no text") }, none, none},
		"text exits":       {runtime.Goexit, none, none},
		"text hangs":       {func() { <-released }, none, none},
		"time panics":      {none, func() { panic("no time") }, none},
		"time exits":       {none, runtime.Goexit, none},
		"comparing panics": {none, none, func() { panic("no comparison") }},
	} {
		t.Run(name, func(t *testing.T) {
			w := consumertest.New(t)
			w.RetryByHand()
			call := consumer.Call(func(_ context.Context, e events.Of[consumertest.Asked]) (events.Payload,
				error) {
				if e.Data.Order == "bad" && name != "text hangs" { // its time is not the test's to set
					return nil, failure
				}
				return consumertest.Answered{Order: e.Data.Order}, nil
			})
			c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), call,
				noteBut(func(context.Context) error { return failure }))
			c.HandlerTimeout = shortTimeout
			w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "bad"}, consumertest.Noted{Order: "bad",
				Text: "bad"})
			for i := range 10 {
				w.PublishAs(consumertest.Shop, consumertest.Noted{Order: fmt.Sprint(i)},
					consumertest.Asked{Order: fmt.Sprint(i)})
			}
			stop := w.Start(c)
			w.Becomes(10, notesCount)
			w.Becomes(1, `SELECT count(*) FROM pending WHERE type = 'order.noted' AND attempts = 1`)
			if name != "text hangs" {
				w.Becomes(10, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
				w.Becomes(1, `SELECT count(*) FROM pending WHERE type = 'order.asked' AND attempts = 1`)
			}
			w.Exec(`UPDATE pending SET due = now()`) // once more, by the way of retries
			w.Becomes(1, `SELECT count(*) FROM pending WHERE type = 'order.noted' AND attempts = 2`)
			stop()
			w.Drained()
		})
	}
	close(released)
}

// A handler that ends its transaction itself, or leaves a query open, costs its own event attempts:
// the others of its batch have their effect, each once.
func TestHandlerThatEndsItsTransactionHarmsItselfOnly(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func(ctx context.Context, tx *sqlx.Tx) error{
		"rolls back": func(_ context.Context, tx *sqlx.Tx) error { return tx.Rollback() },
		"commits":    func(_ context.Context, tx *sqlx.Tx) error { return tx.Commit() },
		"rolls back by SQL": func(ctx context.Context, tx *sqlx.Tx) error {
			_,
				err := tx.ExecContext(ctx, "ROLLBACK")
			return err
		},
		"commits by SQL": func(ctx context.Context, tx *sqlx.Tx) error {
			_,
				err := tx.ExecContext(ctx, "COMMIT")
			return err
		},
		"leaves a query open": func(ctx context.Context, tx *sqlx.Tx) error {
			rows, err := tx.QueryContext(ctx,
				"SELECT generate_series(1, 100000)") //nolint:rowserrcheck,sqlclosecheck // this is the fault
			if err == nil {
				rows.Next()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.New(t)
			w.RetryByHand()
			var runs atomic.Int64
			c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(),
				consumer.Handle(func(ctx context.Context, tx *sqlx.Tx, e events.Of[consumertest.Noted]) error {
					if e.Data.Text == "bad" {
						runs.Add(1)
						return bad(ctx, tx)
					}
					return insertNote(ctx, tx, "bank", e)
				}))
			const count = 50
			var payloads []events.Payload
			for i := range count {
				payloads = append(payloads, consumertest.Noted{Order: "o", Text: map[bool]string{true: "bad",
					false: "good"}[i == count/2]},
					consumertest.Placed{Order: fmt.Sprint(i), Customer: "ada", Amount: 1})
			}
			w.PublishAs(consumertest.Shop, payloads...)
			stop := w.Start(c)
			w.Becomes(count-1, notesCount)
			w.Becomes(count, `SELECT count(*) FROM outbox WHERE type = 'payment.captured'`)
			w.Becomes(count-1, `SELECT count(DISTINCT event_id) FROM notes`)
			stop()
			w.Drained()
			t.Logf("the handler was run %d times, %s", runs.Load(), w.Diagnosis())
		})
	}
}

// slow is a payload of which one method hangs, exits or panics, also when it is to be said.
type slow struct {
	Order string `json:"order"`
	Text  string `json:"text"`
}

var slowness atomic.Pointer[chan struct{}]

func (s slow) EventType() string { return "order.noted" }
func (s slow) Subject() string   { return s.Order }
func (s slow) Validate() error {
	if s.Text == "bad" {
		<-*slowness.Load()
	}
	return nil
}

// Payloads whose checks hang are parked, and the goroutines lost to them are bounded.
func TestChecksThatHangAreBounded(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	released := make(chan struct{})
	slowness.Store(&released)
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(),
		consumer.Handle(func(ctx context.Context, tx *sqlx.Tx, e events.Of[slow]) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO notes (consumer, event_id, text) VALUES ('bank', $1,
				'slow')`, e.ID)
			return err
		}))
	c.HandlerTimeout = shortTimeout
	const count = 3 * engine.MaxHanging
	for i := range count {
		m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: fmt.Sprint(i),
			Text: "bad"}))
		w.Publish(m)
	}
	stop := w.Start(c)
	w.Becomes(count, pendingCount)
	if n := c.Stats().Hanging; n > engine.MaxHanging+consumer.Lanes {
		t.Errorf("%d checks have not returned, want about %d", n, engine.MaxHanging)
	}
	close(released)
	stop()
	w.Drained()
}

// noticed is a payload that is said and whose own code does harm.
type noticed struct {
	Order string `json:"order"`
	harm  func()
}

func (s noticed) EventType() string { return "payment.captured" }
func (s noticed) Subject() string   { s.harm(); return s.Order }

// What a reaction says may hang, panic or exit when it is written down: it costs the event that it
// is about an attempt, and others go on.
func TestWordsThatDoHarmCostTheirOwnEventOnly(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(released chan struct{}){
		"hangs":  func(released chan struct{}) { <-released },
		"panics": func(chan struct{}) { panic("no") },
		"exits":  func(chan struct{}) { runtime.Goexit() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.New(t)
			w.RetryByHand()
			released := make(chan struct{})
			p := consumertest.Participant(func(_ *consumertest.State,
				e events.Of[consumertest.Placed]) (consumer.Effects, error) {
				if e.Data.Order == "bad" {
					return consumer.Publish(noticed{"bad", func() { harm(released) }}), nil
				}
				return consumer.Effects{}, nil
			})
			c := w.Consumer(consumertest.Service, nil, p.Handler(), note("bank"))
			c.HandlerTimeout = shortTimeout
			w.PublishAs(consumertest.Shop, consumertest.Placed{Order: "bad", Customer: "ada", Amount: 1})
			for i := range 20 {
				w.PublishAs(consumertest.Shop, consumertest.Placed{Order: fmt.Sprint(i),
					Customer: fmt.Sprint("ada", i),
					Amount:   1})
			}
			stop := w.Start(c)
			w.Becomes(20, `SELECT count(*) FROM outbox WHERE type = 'payment.captured'`)
			w.Becomes(1, `SELECT count(*) FROM pending WHERE type = 'order.placed' AND attempts = 1`)
			close(released)
			stop()
			w.Drained()
		})
	}
}
