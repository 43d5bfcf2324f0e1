package engine

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
)

// Handler is what a service does about events of some types. Package consumer makes one of what its
// author has written.
type Handler struct {
	Samples []events.Payload // one of each type
	// React handles a batch in tx and returns the effects of each event. It runs the author's code by
	// Safely, in Around or AroundPure.
	React func(ctx context.Context, tx *sqlx.Tx, batch []events.Event) ([]Result, error)
	// Call, if set, is run instead, outside of any transaction; it returns the answer.
	Call func(ctx context.Context, e events.Event) (events.Payload, error)
	// Retry is the policy of the handler.
	Retry Retry
	// Timeout bounds one call, or the handling of one event; 0: HandlerTimeout bounds it.
	Timeout time.Duration
	// Concurrency is how many transactions, or calls, may run at a time; 0: any number.
	Concurrency int
	Middleware  []Middleware // the first one outermost
}

// Next runs what a service does about an event.
type Next = func(ctx context.Context, e events.Event) error

// Middleware wraps Next. It must call next exactly once, unless it fails.
type Middleware = func(next Next) Next

// Result is what the handling of one event wants to happen.
type Result struct {
	Cause   events.Event
	Effects Effects
}

// Effects are written in the transaction of the event.
type Effects struct {
	Publish  []events.Payload // through the outbox
	Schedule []Deadline
	Request  []events.Payload // outside calls
}

func (e Effects) empty() bool { return len(e.Publish)+len(e.Schedule)+len(e.Request) == 0 }

// Deadline is a payload that is delivered to the service's own reactions after a time.
type Deadline struct {
	After   time.Duration
	Payload events.Payload
}
