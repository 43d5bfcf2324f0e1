package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
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
	c.prepare()
	return c.work.write(c.work.withStatements(ctx), tx, []Result{{CauseOf(ctx), e}})
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
	c.prepare()
	s, results, err := p.apply(c.work.withStatements(ctx), tx, batch...)
	if err != nil {
		return nil, nil, err
	}
	return s, results, c.work.write(ctx, tx, results)
}
