package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/tracing"
)

// transactor runs handlers in transactions of the service's database, and writes their effects. It
// is safe for concurrent use.
type transactor struct {
	db         *sqlx.DB // nil: the caller's transactions only
	statements *pg.Statements
	inbox      *inbox.Inbox
	outbox     Outbox
	handlers   *handlers
	hanging    *hanging
	middleware []Middleware
	tracer     *tracing.Tracer // nil: nothing is traced
	stats      *counters
	log        zerolog.Logger
	requested  chan struct{} // a request of a call has been committed
}

// react runs the handlers of a batch, each with its events in their order.
func (t *transactor) react(ctx context.Context, tx *sqlx.Tx,
	batch []events.Event) ([]Result, error) {
	var order []*Handler
	parts := map[*Handler][]events.Event{}
	for _, e := range batch {
		eventType := e.Data.EventType()
		if !t.handlers.reacts(eventType) {
			return nil, Permanent(fmt.Errorf("%s has no handler for %s", t.handlers.service.Name, eventType))
		}
		if err := t.hanging.check(eventType); err != nil {
			return nil, err
		}
		h := t.handlers.of[eventType]
		if parts[h] == nil {
			order = append(order, h)
		}
		parts[h] = append(parts[h], e)
	}
	var results []Result
	for _, h := range order {
		more, err := h.React(ctx, tx, parts[h])
		if err != nil {
			return nil, err
		}
		results = append(results, more...)
	}
	return results, nil
}

// reactAndWrite runs the handlers of a batch and writes their effects. The code of a payload that
// is written may hang as well: then the event counts as failed, or, with several events, the batch
// is split. Exchange returns that through which an event came.
func (t *transactor) reactAndWrite(ctx context.Context, tx *sqlx.Tx, batch []events.Event,
	exchange func(i int) string) error {
	batch = t.begin(ctx, batch, exchange)
	results, err := t.react(ctx, tx, batch)
	if err != nil {
		return err
	}
	key, eventType := "", "a batch"
	if len(batch) == 1 {
		key, eventType = keyOf(batch[0]), batch[0].Data.EventType()
	}
	defer watched(ctx, key, eventType)()
	return t.Write(ctx, tx, results...)
}

// Write writes the effects of a batch: the schedule, the requests, and the outbox last, since its
// rows are what the relay waits for.
func (t *transactor) Write(ctx context.Context, tx *sqlx.Tx, results ...Result) error {
	w, err := t.handlers.writesOf(t.inCurrentTrace(ctx, results), time.Now())
	if err != nil || w.empty() {
		return err
	}
	if err := t.inbox.Schedule(ctx, tx, w.deadlines...); err != nil {
		return err
	}
	if err := t.inbox.Enqueue(ctx, tx, w.requests...); err != nil {
		return err
	}
	if made, ok := ctx.Value(requestsKey{}).(*atomic.Bool); ok && len(w.requests) > 0 {
		made.Store(true)
	}
	return t.outbox.Append(ctx, tx, w.publish...)
}

// WithStatements returns a context in which the hot statements of the database are prepared.
func (t *transactor) WithStatements(ctx context.Context) context.Context {
	if t.db == nil {
		return ctx
	}
	return pg.WithStatements(ctx, t.statements)
}

// requestsKey is the context's key under which a transaction notes that it has written requests.
type requestsKey struct{}

// once is pg.InTx in a context in which the hot statements are prepared. When the transaction
// has committed and has written requests, the calls are hurried: without that their poll finds
// them.
func (t *transactor) once(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	made := new(atomic.Bool)
	ctx = context.WithValue(t.withScope(t.WithStatements(ctx)), requestsKey{}, made)
	ctx, spans := t.withSpans(ctx)
	err := pg.InTx(ctx, t.db, func(tx *sqlx.Tx) error {
		open := &openTx{transactor: t, tx: tx}
		if err := f(context.WithValue(ctx, openTxKey{}, open), tx); err != nil {
			return err
		}
		return open.failed
	})
	spans.end(err)
	if err == nil && made.Load() {
		t.hurryCalls()
	}
	return err
}

// hurryCalls has calls claimed without waiting for the next poll.
func (t *transactor) hurryCalls() {
	select {
	case t.requested <- struct{}{}:
	default:
	}
}

// inTx runs f in a transaction, in a goroutine of its own and within HandlerTimeout. Once begun it
// is not interrupted by a shutdown.
func (t *transactor) inTx(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	_, err := guard(context.WithoutCancel(ctx), t.hanging, t.handlers.bounds.HandlerTimeout,
		func(ctx context.Context) (struct{}, error) {
			return struct{}{}, t.once(ctx, f)
		})
	return err
}

// openTx is a transaction that code which gets its context may join.
type openTx struct {
	transactor *transactor
	tx         *sqlx.Tx
	failed     error // of the first that joined and failed
}

type openTxKey struct{}

// Join runs f in the transaction of ctx, which is that of Tx or of a handler, or in Tx if ctx has
// none. After an error of f, other than a refusal, the transaction that f has joined is not
// committed, even if the code around f ignores the error: f may have written a part of its rows.
func (t *transactor) Join(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	open, ok := ctx.Value(openTxKey{}).(*openTx)
	if !ok || open.transactor != t {
		return t.Tx(ctx, f)
	}
	err := f(ctx, open.tx)
	if err != nil && !isRefusal(err) && open.failed == nil {
		open.failed = err
	}
	return err
}

// Tx runs f in a transaction of the service's database, and hurries the relay and the calls when it
// has committed. It runs f again, up to MaxReruns times, when another transaction was first or the
// database has chosen this one to end a deadlock, so f must be repeatable. What f publishes,
// schedules or requests happens if, and only if, Tx returns nil, or the commit arrived although its
// outcome is unknown (pg.ErrUnknownOutcome).
func (t *transactor) Tx(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) (err error) {
	for range MaxReruns {
		err = t.once(ctx, f)
		if pg.ClassOf(err) != pg.Retry {
			break
		}
		sleep(ctx, jitter(rerunPause))
	}
	if err == nil || errors.Is(err, pg.ErrUnknownOutcome) {
		t.outbox.Nudge()
	}
	return err
}
