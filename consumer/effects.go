package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/topology"
)

// Effects are what a reaction wants to happen. All of them are written in the transaction of the
// reaction: they happen if, and only if, it commits. The zero value is no effect.
type Effects struct {
	Publish  []events.Payload // events for other services, through the outbox
	Schedule []Deadline       // messages to the service's own reactions, later
	Request  []events.Payload // calls to the outside; the Call handler of the type makes them
}

// Deadline is a payload that is delivered to the service's own reactions after a time, once per
// type and subject: a deadline that is set again moves. The time runs by the database's clock, so
// it does not matter whose clock is wrong. Less than zero is zero.
type Deadline struct {
	After   time.Duration
	Payload events.Payload
}

// Publish returns the effect that these events are published.
func Publish(payloads ...events.Payload) Effects { return Effects{Publish: payloads} }

// Schedule returns the effect that a payload is delivered to the service's own reactions later.
func Schedule(after time.Duration, payload events.Payload) Effects {
	return Effects{Schedule: []Deadline{{After: after, Payload: payload}}}
}

// Request returns the effect that the outside is called, once for each request. The call is made
// after the commit, see Call; its answer is delivered to the service's own reactions.
func Request(requests ...events.Payload) Effects { return Effects{Request: requests} }

// And returns both effects.
func (e Effects) And(others ...Effects) Effects {
	for _, o := range others {
		e.Publish = slices.Concat(e.Publish, o.Publish)
		e.Schedule = slices.Concat(e.Schedule, o.Schedule)
		e.Request = slices.Concat(e.Request, o.Request)
	}
	return e
}

// Refusal is the error of a reaction that refuses a command for a reason of the business. The
// caller of the command gets it, the transaction is rolled back, and it is not tried again. An
// event of another service is not refused: a refusal of one is parked.
type Refusal struct {
	Code   string // for programs, such as NotFound
	Detail string // for people
}

// The codes of refusals that most commands have. A service may have codes of its own.
const (
	NotFound = "not_found" // what the command is about does not exist
	Conflict = "conflict"  // it is in a state in which the command makes no sense
	Invalid  = "invalid"   // the command itself can never be executed
)

func (r *Refusal) Error() string { return r.Detail }

// Refuse returns a refusal with a code and a text, formatted as by fmt.Sprintf.
func Refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func isRefusal(err error) bool { return errors.As(err, new(*Refusal)) }

// Result is what the reaction to one event wants to happen.
type Result struct {
	Cause   events.Event
	Effects Effects
}

// Execute writes effects in tx, caused by the event that is handled in ctx; outside of a handler
// they have no cause. It refuses what the topology does not declare.
func (c *Consumer) Execute(ctx context.Context, tx *sqlx.Tx, e Effects) error {
	return c.execute(c.withStatements(ctx), tx, []Result{{CauseOf(ctx), e}})
}

// Apply reacts to a batch in tx, in its order: it loads and locks what the batch needs, runs the
// reactions in memory, saves what has changed, and executes the effects. It returns the state after
// the batch, and the effects that it has executed. HTTP handlers use it with events.Command;
// deliveries and deadlines take the same way.
//
// Any error means that tx must be rolled back. A *Refusal is the answer "no" to a command. An error
// that wraps pg.ErrRaced means that another replica inserted the same row first: run the
// transaction again.
func Apply[S any](ctx context.Context, c *Consumer, tx *sqlx.Tx, p Participant[S],
	batch ...events.Event) (*S, []Result, error) {
	s, results, err := p.apply(c.withStatements(ctx), tx, batch...)
	if err != nil {
		return nil, nil, err
	}
	return s, results, c.execute(ctx, tx, results)
}

// execute writes the effects of a batch: the schedule, the requests, and the outbox last, since its
// rows are what the relay waits for.
func (c *Consumer) execute(ctx context.Context, tx *sqlx.Tx, results []Result) error {
	c.prepare()
	var out []events.Event
	var deadlines []inbox.Deadline
	var requests []inbox.Pending
	for _, r := range results {
		for _, d := range r.Effects.Schedule {
			if err := c.checkDeadline(d); err != nil {
				return err
			}
			e := c.caused(r.Cause, d.Payload)
			e.ID, e.CausationID = "", ""
			deadlines = append(deadlines, inbox.Deadline{After: max(0, d.After), Event: e})
		}
		for _, p := range r.Effects.Request {
			request, err := c.request(r.Cause, p)
			if err != nil {
				return err
			}
			requests = append(requests, request)
		}
		for _, p := range r.Effects.Publish {
			if err := c.checkPublished(r.Cause, p); err != nil {
				return err
			}
			out = append(out, c.caused(r.Cause, p))
		}
	}
	if len(deadlines)+len(requests)+len(out) == 0 {
		return nil
	}
	if err := c.Inbox.Schedule(ctx, tx, deadlines...); err != nil {
		return err
	}
	if err := c.Inbox.Enqueue(ctx, tx, requests...); err != nil {
		return err
	}
	if made, ok := ctx.Value(requestsKey{}).(*atomic.Bool); ok && len(requests) > 0 {
		made.Store(true)
	}
	return c.Outbox.Append(ctx, tx, out...)
}

// caused returns the event that a payload becomes because of another one.
func (c *Consumer) caused(cause events.Event, p events.Payload) events.Event {
	return events.Cause(cause, topology.SourceOf(c.Name), time.Now(), p)
}

// request returns the row of a call. Its key is the idempotency key of the call.
func (c *Consumer) request(cause events.Event, p events.Payload) (inbox.Pending, error) {
	eventType := p.EventType()
	switch {
	case !c.handlers.isCall(eventType):
		return inbox.Pending{}, Permanent(fmt.Errorf("%s requests %s, for which it has no Call handler",
			c.Name, eventType))
	case !c.handlers.service.MayRequest(causeType(cause), eventType):
		return inbox.Pending{}, Permanent(fmt.Errorf("%s may not request %s%s: its topology does not "+
			"declare it", c.Name, eventType, on(cause)))
	}
	e := c.caused(cause, p)
	record, err := e.Record()
	if err != nil {
		return inbox.Pending{}, err
	}
	return inbox.Pending{Owner: c.Name, Key: e.ID, Kind: inbox.Call, Type: eventType,
		Attributes: inbox.EnvelopeOf(record), Body: bodyOf(record.Data)}, nil
}

// checkDeadline refuses a deadline that would never be delivered.
func (c *Consumer) checkDeadline(d Deadline) error {
	eventType := d.Payload.EventType()
	if !c.handlers.reacts(eventType) {
		return Permanent(fmt.Errorf("%s sets a deadline %s, to which it has no reaction", c.Name,
			eventType))
	}
	if _, named := c.handlers.service.Command(eventType); !named {
		return Permanent(fmt.Errorf("%s sets a deadline %s: give the command of its topology that it "+
			"carries this type", c.Name, eventType))
	}
	return nil
}

// checkPublished refuses an event that the topology does not declare for its cause or, without one,
// for a command.
func (c *Consumer) checkPublished(cause events.Event, p events.Payload) error {
	eventType := p.EventType()
	switch {
	case !slices.Contains(c.handlers.service.Publishes(), eventType):
		return Permanent(fmt.Errorf("%s may not publish %s: its topology does not declare it", c.Name,
			eventType))
	case cause.Data == nil && !c.handlers.service.MayPublishFirst(eventType):
		return Permanent(fmt.Errorf("%s may not publish %s without a cause: no command of its topology "+
			"declares it", c.Name, eventType))
	case cause.Data != nil && !c.handlers.service.MayPublish(causeType(cause), eventType):
		return Permanent(fmt.Errorf("%s may not publish %s%s: its topology does not declare it", c.Name,
			eventType, on(cause)))
	}
	return nil
}

func causeType(cause events.Event) string {
	if cause.Data == nil {
		return ""
	}
	return cause.Data.EventType()
}

// on names a cause in an error.
func on(cause events.Event) string {
	if cause.Data == nil {
		return ""
	}
	return " on " + cause.Data.EventType()
}

// withStatements returns a context in which the hot statements of the database are prepared.
func (c *Consumer) withStatements(ctx context.Context) context.Context {
	c.prepare()
	if c.DB == nil {
		return ctx
	}
	return pg.WithStatements(ctx, c.statements)
}
