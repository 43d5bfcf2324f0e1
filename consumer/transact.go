package consumer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/inbox"
)

// transact handles a batch in one transaction: inbox, reactions, outbox. Events that took effect
// before are passed over. Those that ask for an outside call only become due here, since a call
// must hold up neither a transaction nor a lane; so do those that only another release reacts to.
// Once begun it is not interrupted by a shutdown, only by its bound.
func (c *Consumer) transact(ctx context.Context, batch []item) error {
	var accepted accepted
	var put int // aside
	err := c.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if accepted, err = c.accept(ctx, tx, batch); err != nil {
			return err
		}
		var todo []events.Event
		var waiting []inbox.Pending
		for _, it := range accepted.fresh {
			if h := c.handlerOf[it.receipt.Type]; h == nil || h.call != nil {
				waiting = append(waiting, it.pending())
			} else {
				todo = append(todo, it.event)
			}
		}
		put = len(waiting)
		if err := c.Inbox.Enqueue(ctx, tx, waiting...); err != nil || len(todo) == 0 {
			return err
		}
		return c.applyAndEmit(ctx, tx, todo)
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

// applyAndEmit runs the handlers of a batch and writes what they said. The code of a payload that
// is written may hang as well: it counts as the handler's, of the one event or of nobody in
// particular, and then the batch is split.
func (c *Consumer) applyAndEmit(ctx context.Context, tx *sqlx.Tx, batch []events.Event) error {
	published, err := c.apply(ctx, tx, batch)
	if err != nil {
		return err
	}
	key, eventType := "", "a batch"
	if len(batch) == 1 {
		key, eventType = keyOf(batch[0]), batch[0].Data.EventType()
	}
	defer watched(ctx, key, eventType)()
	if err := c.checkPublished(batch, published); err != nil {
		return err
	}
	return c.Emit(ctx, tx, published...)
}

// apply runs the handlers of a batch, each with its events in their order.
func (c *Consumer) apply(ctx context.Context, tx *sqlx.Tx, batch []events.Event) ([]events.Event,
	error) {
	var order []*Handler
	parts := map[*Handler][]events.Event{}
	for _, e := range batch {
		h := c.handlerOf[e.Data.EventType()]
		if h == nil {
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
	var published []events.Event
	for _, h := range order {
		more, err := h.apply(ctx, tx, parts[h])
		if err != nil {
			return nil, err
		}
		published = append(published, more...)
	}
	return published, nil
}

// checkPublished refuses what the topology does not let the service say on hearing a batch.
func (c *Consumer) checkPublished(batch, published []events.Event) error {
	// event id → its type; "" → the types of deadlines, which have no id
	causes := map[string][]string{}
	for _, e := range batch {
		causes[e.ID] = append(causes[e.ID], e.Data.EventType())
	}
	for _, e := range published {
		if _, later := e.Data.(Deadline); !later && !c.mayPublish(causes[e.CausationID], e.Data) {
			return c.undeclared(strings.Join(causes[e.CausationID], " or "), e.Data)
		}
	}
	return nil
}

// mayPublish tells whether the topology declares p because of one of the causes.
func (c *Consumer) mayPublish(causes []string, p events.Payload) bool {
	return slices.ContainsFunc(causes, func(cause string) bool {
		return c.service.MayPublish(cause,
			p.EventType())
	})
}

func (c *Consumer) undeclared(handled string, published events.Payload) error {
	return Permanent(fmt.Errorf("%s may not say %s on hearing %s: its topology does not declare it",
		c.Name, published.EventType(), handled))
}

// call makes the call. Its errors are outsideError: whatever they look like, they are not the
// database's.
func (c *Consumer) call(ctx context.Context, e events.Event) ([]events.Event, error) {
	answer, err := c.handlerOf[e.Data.EventType()].call(withCause(ctx, e), e)
	if err != nil {
		return nil, outsideError{err}
	}
	if answer == nil {
		return nil, nil
	}
	if handled := e.Data.EventType(); !c.service.MayPublish(handled, answer.EventType()) {
		return nil, c.undeclared(handled, answer)
	}
	return []events.Event{cause(c.Name, e, answer)}, nil
}
