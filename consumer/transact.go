package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// transact handles a batch in one transaction: inbox, reactions, outbox. Events that took effect
// before are skipped. Events whose handler is a Call, and those that only another release handles,
// are only written as due here, since a call must delay neither a transaction nor a lane. A
// shutdown does not interrupt the transaction; only HandlerTimeout does.
func (c *Consumer) transact(ctx context.Context, batch []item) error {
	var accepted accepted
	var put int // into pending
	err := c.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if accepted, err = c.accept(ctx, tx, batch); err != nil {
			return err
		}
		var todo []events.Event
		var waiting []inbox.Pending
		for _, it := range accepted.fresh {
			if c.handlers.reacts(it.receipt.Type) {
				todo = append(todo, it.event)
			} else {
				waiting = append(waiting, it.pending(c.handlers.waitsAs(it.receipt.Type)))
			}
		}
		put = len(waiting)
		if err := c.Inbox.Enqueue(ctx, tx, waiting...); err != nil || len(todo) == 0 {
			return err
		}
		return c.applyAndExecute(ctx, tx, todo)
	})
	if err != nil {
		return err
	}
	c.Outbox.Nudge()
	if put > 0 {
		c.nudgeCalls()
	}
	c.stats.batches.Add(1)
	c.stats.handled.Add(int64(len(accepted.fresh) - put))
	c.noteAccepted(accepted, len(batch))
	return nil
}

// applyAndExecute runs the handlers of a batch and writes their effects. The code of a payload that
// is written may hang as well: then the event counts as failed, or, with several events, the batch
// is split.
func (c *Consumer) applyAndExecute(ctx context.Context, tx *sqlx.Tx, batch []events.Event) error {
	results, err := c.apply(ctx, tx, batch)
	if err != nil {
		return err
	}
	key, eventType := "", "a batch"
	if len(batch) == 1 {
		key, eventType = keyOf(batch[0]), batch[0].Data.EventType()
	}
	defer watched(ctx, key, eventType)()
	return c.execute(ctx, tx, results)
}

// apply runs the handlers of a batch, each with its events in their order.
func (c *Consumer) apply(ctx context.Context, tx *sqlx.Tx, batch []events.Event) ([]Result, error) {
	var order []*Handler
	parts := map[*Handler][]events.Event{}
	for _, e := range batch {
		h := c.handlers.of[e.Data.EventType()]
		if !c.handlers.reacts(e.Data.EventType()) {
			return nil, Permanent(fmt.Errorf("%s has no handler for %s", c.Name, e.Data.EventType()))
		}
		if err := c.hanging.check(e.Data.EventType()); err != nil {
			return nil, err
		}
		if parts[h] == nil {
			order = append(order, h)
		}
		parts[h] = append(parts[h], e)
	}
	var results []Result
	for _, h := range order {
		more, err := h.apply(ctx, tx, parts[h])
		if err != nil {
			return nil, err
		}
		results = append(results, more...)
	}
	return results, nil
}

// requestsKey is the context's key under which a transaction notes that it has written requests.
type requestsKey struct{}

// tx is pg.InTx in a context in which the hot statements are prepared. When the transaction
// has committed and has written requests, the calls are hurried: without that their poll finds
// them.
func (c *Consumer) tx(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	made := new(atomic.Bool)
	ctx = context.WithValue(c.withScope(c.withStatements(ctx)), requestsKey{}, made)
	err := pg.InTx(ctx, c.DB, func(tx *sqlx.Tx) error {
		open := &openTx{consumer: c, tx: tx}
		if err := f(context.WithValue(ctx, openTxKey{}, open), tx); err != nil {
			return err
		}
		return open.failed
	})
	if err == nil && made.Load() {
		c.nudgeCalls()
	}
	return err
}

// openTx is a transaction that code which gets its context may join.
type openTx struct {
	consumer *Consumer
	tx       *sqlx.Tx
	failed   error // of the first that joined and failed
}

type openTxKey struct{}

// Join runs f in the transaction of ctx, which is that of Tx or of a handler, or in Tx if ctx has
// none. After an error of f, other than a refusal, the transaction that f has joined is not
// committed, even if the code around f ignores the error: f may have written a part of its rows.
func (c *Consumer) Join(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	open, ok := ctx.Value(openTxKey{}).(*openTx)
	if !ok || open.consumer != c {
		return c.Tx(ctx, f)
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
func (c *Consumer) Tx(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) (err error) {
	for range MaxReruns {
		err = c.tx(ctx, f)
		if pg.ClassOf(err) != pg.Retry {
			break
		}
		sleep(ctx, jitter(rerunPause))
	}
	if err == nil || errors.Is(err, pg.ErrUnknownOutcome) {
		c.Outbox.Nudge()
	}
	return err
}
