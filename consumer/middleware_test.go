package consumer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// journal notes lines from several goroutines.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) sorted() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Sorted(slices.Values(j.lines))
}

// named is a middleware that notes what it wraps.
func (j *journal) named(name string) consumer.Middleware {
	return func(next consumer.Next) consumer.Next {
		return func(ctx context.Context, e events.Event) error {
			j.note("%s: %s, attempt %d", name, e.Data.EventType(), consumer.AttemptOf(ctx))
			return next(ctx, e)
		}
	}
}

// Middleware wraps handlers, reactions and calls, that of the consumer outside of that of the
// handler; the context has the attempt, and a logger that names the event.
func TestMiddlewareWrapsWhateverHandles(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var seen journal
	var log bytes.Buffer // the handler of order.noted alone writes into it
	c := w.Consumer(consumertest.Service, nil,
		inquirer(inquire),
		consumer.Call(func(_ context.Context, e events.Of[consumertest.Inquire]) (events.Payload, error) {
			return consumertest.Inquired{Order: e.Data.Order}, nil
		}),
		consumer.Handle(func(ctx context.Context, _ *sqlx.Tx, e events.Of[consumertest.Noted]) error {
			logger := zerolog.Ctx(ctx).Output(&log)
			logger.Info().Msg("here")
			if consumer.AttemptOf(ctx) == 1 {
				return errors.New("not now")
			}
			return nil
		}).With(consumer.Options{Middleware: []consumer.Middleware{seen.named("inner")}}))
	c.Middleware = []consumer.Middleware{seen.named("outer")}
	c.Log = c.Log.Level(zerolog.InfoLevel)
	stop := w.Start(c)
	e := w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "n"})[0]
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1`)
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(0, pendingCount)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	stop()
	// A batch that fails is run once more, one by one.
	got := slices.Compact(seen.sorted())
	want := []string{
		"inner: order.noted, attempt 1", "inner: order.noted, attempt 2",
		"outer: bank.inquire, attempt 1", "outer: bank.inquired, attempt 1",
		"outer: order.asked, attempt 1", "outer: order.noted, attempt 1",
		"outer: order.noted, attempt 2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("seen %q", got)
	}
	for _, field := range []string{`"event_id":"` + e.ID, `"event_type":"order.noted"`,
		`"subject":"n"`, `"correlation_id":"` + e.CorrelationID, `"trace_id":"` + e.TraceParent[3:35],
		`"attempt":2`} {
		name, _, _ := strings.Cut(field, ":")
		if _, second, _ := strings.Cut(log.String(), "\n"); !strings.Contains(second, field) ||
			strings.Count(second, name+":") != 1 {
			t.Errorf("%s is not once in the log: %s", field, log.String())
		}
	}
}

// A handler has a policy of its own: attempts, a time-out of its context, and how many run at a
// time.
func TestOptionsOfOneHandler(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var running, most atomic.Int32
	first, leave := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(first); <-leave })
	_, stop := w.Bank(
		consumer.Handle(func(ctx context.Context, _ *sqlx.Tx, e events.Of[consumertest.Noted]) error {
			if e.Data.Order == "slow" {
				<-ctx.Done()
				return ctx.Err()
			}
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			if e.Data.Order == "0" {
				once()
			}
			return nil
		}).With(consumer.Options{Retry: consumer.Retry{Attempts: 2}, Timeout: 50 * time.Millisecond,
			Concurrency: 1}))
	var payloads []events.Payload
	for i := range 200 {
		payloads = append(payloads, consumertest.Noted{Order: fmt.Sprint(i)})
	}
	w.PublishAs(consumertest.Shop, append(payloads, consumertest.Noted{Order: "slow"})...)
	<-first
	w.Eventually("all deliveries are in hand", func() (bool, string) {
		return w.Consumers("bank.in", 1).Messages == 0, w.Diagnosis()
	})
	if n := w.Int(inboxCount); n != 0 {
		t.Errorf("%d events were handled while the only lane was taken", n)
	}
	close(leave)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1 AND due IS NOT NULL
		AND reason LIKE '%deadline exceeded%'`)
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 2 AND due IS NULL`)
	stop()
	if most.Load() != 1 {
		t.Errorf("%d at a time", most.Load())
	}
	w.Drained()
}

// All faults of the bounds come in one error.
func TestBoundsNameAllTheirFaults(t *testing.T) {
	t.Parallel()
	err := consumer.Bounds{Lanes: -1, CallTimeout: -time.Second}.Validate()
	if err == nil || !strings.Contains(err.Error(), "Lanes is -1") ||
		!strings.Contains(err.Error(), "CallTimeout is") {
		t.Errorf("%v", err)
	}
	err = consumer.Bounds{Retry: consumer.Retry{First: time.Hour}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "must not be longer") {
		t.Errorf("%v", err)
	}
	if err := (consumer.Bounds{}).Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

// A bound that would overflow, or that the protocol cannot carry, is refused, and so are faults of
// a handler's options; what is left makes pauses that grow, however many attempts there are.
func TestBoundsHaveLimits(t *testing.T) {
	t.Parallel()
	const forever = time.Duration(math.MaxInt64)
	for want, b := range map[string]consumer.Bounds{
		"Prefetch is 65536": {Prefetch: 1 << 16}, "CallWorkers is": {CallWorkers: math.MaxInt},
		"Lanes is": {Lanes: math.MaxInt}, "BatchMax is": {BatchMax: math.MaxInt},
		"CallTimeout is": {CallTimeout: forever}, "HandlerTimeout is": {HandlerTimeout: forever},
		"ShutdownTimeout is": {ShutdownTimeout: forever},
		"Retry.Longest is":   {Retry: consumer.Retry{Longest: forever}},
	} {
		if err := b.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	handler := consumer.Call(func(context.Context, events.Of[consumertest.Inquire]) (events.Payload,
		error) {
		return nil, nil
	})
	for want, o := range map[string]consumer.Options{
		"Timeout is -1": {Timeout: -1}, "Concurrency is -1": {Concurrency: -1},
		"Retry.First is -1":       {Retry: consumer.Retry{First: -1}},
		"must not be longer":      {Retry: consumer.Retry{First: time.Hour}},
		"Middleware contains nil": {Middleware: []consumer.Middleware{nil}},
	} {
		c := &consumer.Consumer{Name: "x", Handlers: []consumer.Handler{handler.With(o)}}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	first := 48 * time.Hour
	r := consumer.Retry{Attempts: 100, First: first, Longest: 4 * first}
	for attempts := range 100 {
		if d := r.PauseOf(attempts + 1); d < first/2 || d > 4*first {
			t.Errorf("after %d attempts: %s", attempts+1, d)
		}
	}
}

// What a topology says is called needs a Call handler.
func TestCallsOfTheTopologyNeedCallHandlers(t *testing.T) {
	t.Parallel()
	c := &consumer.Consumer{Name: consumertest.Service, Topology: consumertest.Topology(),
		Handlers: []consumer.Handler{inquirer(inquire)}}
	err := c.Validate()
	for _, want := range []string{"no Call handler for bank.inquire", "no handler for order.placed"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
