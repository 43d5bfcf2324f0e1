package consumer

import (
	"context"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
)

// Next runs what a service does about an event: a handler, a reaction or an outside call.
type Next = func(ctx context.Context, e events.Event) error

// Middleware wraps what a service does about an event. It may look at the event, measure, change
// the context that a handler or a call gets, change the event's TraceParent, and turn an error into
// another one; it must call next exactly once, unless it fails: otherwise the event is parked. A
// reaction is pure and gets no context. Middleware runs inside of the transaction of a handler, so
// it must be quick.
type Middleware func(next Next) Next

// Options replace the Bounds of the consumer for one handler. The zero value of a field keeps the
// bound.
type Options struct {
	Retry Retry
	// Timeout is how long the handler of one event may take, or one call. A handler that outlives it
	// fails when it looks at its context; one that never does is bound by Bounds.HandlerTimeout. For a
	// call it takes the place of Bounds.CallTimeout.
	Timeout time.Duration
	// Concurrency is how many transactions with deliveries of the handler's types run at a time in one
	// replica, or how many of its calls are under way; 0 means as many as there are lanes, or workers.
	// A retry or a deadline runs in a transaction besides. Deliveries of one subject are in one lane
	// if their types have the same Concurrency.
	Concurrency int
	// Middleware wraps this handler, inside of that of the consumer.
	Middleware []Middleware
}

// With returns the handler with options of its own.
func (h Handler) With(o Options) Handler {
	h.options = o
	return h
}

// AttemptOf returns how often the event that is being handled has been tried, this attempt
// included; 0 outside of a handler.
func AttemptOf(ctx context.Context) int { return engine.AttemptOf(ctx) }

// CauseOf returns the event that is being handled, or an empty one outside of a handler.
func CauseOf(ctx context.Context) events.Event { return engine.CauseOf(ctx) }

// compiled returns middleware as the engine sees it.
func compiled(list []Middleware) []engine.Middleware {
	var all []engine.Middleware
	for _, m := range list {
		all = append(all, engine.Middleware(m))
	}
	return all
}
