package consumer_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
)

// shortTimeout is long enough for whatever does not hang.
const shortTimeout = 5 * time.Second

// noteBut is the handler of Noted, which does something else for the text "bad".
func noteBut(bad func(ctx context.Context) error) consumer.Handler {
	return consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		if strings.HasPrefix(e.Data.Text, "bad") {
			return bad(ctx)
		}
		return insertNote(ctx, tx, "bank", e)
	})
}

// A handler that neither returns nor looks at its context, one that ends its goroutine and one that
// panics cost their own events attempts. All others are handled, whatever their subject, and the
// consumer says that it is not healthy.
func TestHandlerThatHangsOrExitsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func(context.Context, chan struct{}) error{
		"hangs":  func(_ context.Context, released chan struct{}) error { <-released; return nil },
		"exits":  func(context.Context, chan struct{}) error { runtime.Goexit(); return nil },
		"panics": func(context.Context, chan struct{}) error { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.New(t)
			w.RetryByHand()
			released := make(chan struct{})
			c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(),
				noteBut(func(ctx context.Context) error { return bad(ctx, released) }))
			c.HandlerTimeout = shortTimeout
			var payloads []events.Payload
			const count = 400
			for i := range count {
				text := "good"
				if i == 100 || i == 200 {
					text = "bad"
				}
				payloads = append(payloads, consumertest.Noted{Order: fmt.Sprint(i % 7), Text: text})
			}
			w.PublishAs(consumertest.Shop, payloads...)
			stop := w.Start(c)
			w.Becomes(count-2, notesCount)
			w.Becomes(2, `SELECT count(*) FROM pending WHERE attempts = 1 AND due IS NOT NULL`)
			if name == "hangs" {
				w.Eventually("it is not healthy", func() (bool, string) {
					err := c.Healthy()
					return err != nil && strings.Contains(err.Error(), "order.noted"), fmt.Sprint(err)
				})
			}
			close(released)
			w.Eventually("it is healthy again", func() (bool, string) {
				return c.Healthy() == nil,
					fmt.Sprint(c.Healthy())
			})
			stop()
			w.Drained()
		})
	}
}

// A retry or a deadline that hangs keeps no others from coming.
func TestRetryThatHangsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	released := make(chan struct{})
	p := consumertest.Participant(nil)
	p.React[len(p.React)-1] = consumer.On(func(_ *consumertest.State,
		e events.Of[consumertest.Expired]) (consumer.Effects, error) {
		if e.Data.Order == "bad" {
			<-released
		}
		return consumer.Publish(consumertest.Overdue{Order: e.Data.Order}), nil
	})
	c := w.Consumer(consumertest.Service, nil, p.Handler())
	c.HandlerTimeout = shortTimeout
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "bad"},
		consumertest.Reminded{Order: "a"}, consumertest.Reminded{Order: "b"})
	w.Becomes(2, overdueCount)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE key = 'order.expired:bad' AND attempts > 0`)
	close(released)
	w.Becomes(3, overdueCount)
	stop()
	w.Drained()
}

// A handler of which too many runs have not returned is not run any more, and calls likewise: the
// goroutines that are lost are bounded.
func TestRunsThatHangAreBounded(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	released := make(chan struct{})
	var runs atomic.Int64
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(),
		noteBut(func(context.Context) error {
			runs.Add(1)
			<-released
			return nil
		}))
	c.HandlerTimeout = time.Second
	const count = 3 * engine.MaxHanging
	for i := range count {
		w.PublishAs(consumertest.Shop, consumertest.Noted{Order: fmt.Sprint(i), Text: "bad"})
	}
	stop := w.Start(c)
	w.Becomes(count, `SELECT count(*) FROM pending WHERE attempts = 1`)
	w.Becomes(0, notesCount)
	if n := runs.Load(); n < 1 || n > engine.MaxHanging+consumer.Lanes {
		t.Errorf("the handler was run %d times, want about %d", n, engine.MaxHanging)
	}
	if n := w.Int(`SELECT count(*) FROM pending WHERE reason LIKE '%is not run%'`); n == 0 {
		t.Error("no event says that its handler was not run")
	}
	close(released)
	stop()
	w.Drained()
}

// A call that ignores its context gives its slot back.
func TestCallThatIgnoresItsContextHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	released := make(chan struct{})
	call := consumer.Call(func(_ context.Context, e events.Of[consumertest.Asked]) (events.Payload,
		error) {
		switch e.Data.Order {
		case "bad":
			<-released
		case "exit":
			runtime.Goexit()
		}
		return consumertest.Answered{Order: e.Data.Order}, nil
	})
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), call)
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "bad"}, consumertest.Asked{Order: "exit"},
		consumertest.Asked{Order: "good"})
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	w.Becomes(2, `SELECT count(*) FROM pending WHERE attempts = 1 AND due IS NOT NULL`)
	close(released)
	stop()
	w.Drained()
}

// A payload whose Validate hangs or exits holds up nobody: its message is parked.
func TestPayloadThatHangsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var payloads []events.Payload
	for i := range 50 {
		payloads = append(payloads, consumertest.Noted{Order: fmt.Sprint(i)})
	}
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "bad"}))
	m.Body = []byte(`{"order":"bad","text":"exit"}`)
	w.Publish(m)
	w.PublishAs(consumertest.Shop, payloads...)
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), note("bank"))
	c.HandlerTimeout = shortTimeout
	stop := w.Start(c)
	w.Becomes(50, notesCount)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND reason LIKE 'decode%'
		AND type = 'order.noted'`)
	stop()
	w.Drained()
}
