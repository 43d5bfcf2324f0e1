package consumer

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/inbox"
	"github.com/quadrille-go/quadrille/postgres"
)

// Emit puts what a reaction or a command said into the outbox, and what it scheduled into the
// inbox's schedule, in tx.
func (c *Consumer) Emit(ctx context.Context, tx *sqlx.Tx, published ...events.Event) error {
	c.prepare()
	var out []events.Event
	var deadlines []inbox.Deadline
	for _, e := range published {
		later, ok := e.Data.(Deadline)
		if !ok {
			out = append(out, e)
			continue
		}
		if c.handlerOf[later.EventType()] == nil {
			return Permanent(fmt.Errorf("%s sets a deadline %s, to which it has no reaction", c.Name,
				later.EventType()))
		}
		if _, named := c.service.Command(later.EventType()); !named {
			return Permanent(fmt.Errorf("%s sets a deadline %s: give the command of its topology that it "+
				"carries this type", c.Name, later.EventType()))
		}
		command := events.Event{CorrelationID: e.CorrelationID, TraceParent: e.TraceParent, Time: e.Time,
			Data: later.Payload}
		deadlines = append(deadlines, inbox.Deadline{After: max(0, later.After), Event: command})
	}
	if err := c.Inbox.Schedule(ctx, tx, deadlines...); err != nil {
		return err
	}
	for _, e := range out {
		if err := c.checkDeclared(ctx, e); err != nil {
			return err
		}
	}
	return c.Outbox.Append(ctx, tx, out...)
}

// checkDeclared refuses an event that the topology does not declare for the event that is handled
// or, without one, for a command.
func (c *Consumer) checkDeclared(ctx context.Context, e events.Event) error {
	published := e.Data.EventType()
	cause := CauseOf(ctx)
	switch {
	case !slices.Contains(c.service.Publishes(), published):
		return Permanent(fmt.Errorf("%s may not say %s: its topology does not declare it", c.Name,
			published))
	case cause.Data != nil && cause.ID == e.CausationID &&
		!c.mayPublish([]string{cause.Data.EventType()}, e.Data):
		return c.undeclared(cause.Data.EventType(), e.Data)
	case cause.Data == nil && e.CausationID == "" && !c.service.MayPublishFirst(published):
		return Permanent(fmt.Errorf("%s may not say %s without hearing anything: no command of its "+
			"topology declares it", c.Name, published))
	}
	return nil
}

// Context returns a context in which the hot statements of the consumer's database are prepared.
func (c *Consumer) Context(ctx context.Context) context.Context {
	c.prepare()
	return postgres.WithStatements(ctx, c.statements)
}
