package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

// Next runs what a service does about an event: a handler, a reaction or an outside call.
type Next func(ctx context.Context, e events.Event) error

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
func AttemptOf(ctx context.Context) int {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	if s == nil {
		return 0
	}
	return s.attempt(keyOf(CauseOf(ctx)))
}

// scope is what a transaction, or a call, knows about the author's code that it runs.
type scope struct {
	transactor *transactor
	failed     map[string]int // attempts that have failed, by key
}

type scopeKey struct{}

func (s *scope) attempt(key string) int { return s.failed[key] + 1 }

// withScope returns a context in which the middleware and the options of handlers apply to what
// waits, or to what comes for the first time.
func (t *transactor) withScope(ctx context.Context, waited ...inbox.Pending) context.Context {
	failed := make(map[string]int, len(waited))
	for _, p := range waited {
		failed[p.Key] = p.Attempts
	}
	return context.WithValue(ctx, scopeKey{}, &scope{t, failed})
}

// around runs the author's code for one event inside of the middleware, and within the time-out of
// its handler. The context has the event as the cause of what is published, and a logger with the
// event's id, type, correlation id and attempt; see zerolog.Ctx.
func around(ctx context.Context, e events.Event, run Next) error {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	ctx = withCause(ctx, e)
	if s == nil {
		return run(ctx, e)
	}
	t := s.transactor
	eventType := e.Data.EventType()
	logger := t.log.With().Str("event_id", keyOf(e)).Str("event_type", eventType).
		Str("correlation_id", e.CorrelationID).Int("attempt", s.attempt(keyOf(e))).Logger()
	ctx = logger.WithContext(ctx)
	var inner []Middleware
	if h := t.handlers.of[eventType]; h != nil {
		if h.options.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, h.options.Timeout)
			defer cancel()
		}
		inner = h.options.Middleware
	}
	return wrapped(ctx, slices.Concat(t.middleware, inner), e, run)
}

// aroundReaction is around for a reaction, which is pure: without middleware there is nothing to
// do.
func aroundReaction(ctx context.Context, e events.Event, run Next) error {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	if s == nil {
		return run(ctx, e)
	}
	h := s.transactor.handlers.of[e.Data.EventType()]
	if len(s.transactor.middleware) == 0 && (h == nil || len(h.options.Middleware) == 0) {
		return run(ctx, e)
	}
	return around(ctx, e, run)
}

// wrapped runs the author's code inside of middleware. If middleware has changed the event, only
// its trace is used, for what is published because of it. If middleware has not run the code, or
// has run it twice, the event would have no effect or two: it is parked.
func wrapped(ctx context.Context, list []Middleware, e events.Event, run Next) error {
	var calls atomic.Int32
	next := func(ctx context.Context, changed events.Event) error {
		if calls.Add(1) > 1 {
			return errCalledAgain
		}
		e := e
		e.TraceParent = changed.TraceParent
		return run(withCause(ctx, e), e)
	}
	for _, m := range slices.Backward(list) {
		next = m(next)
	}
	err := next(ctx, e)
	if n := calls.Load(); n > 1 || n == 0 && err == nil {
		return Permanent(fmt.Errorf("middleware called next %d times for %s, not once", n,
			e.Data.EventType()))
	}
	return err
}

var errCalledAgain = errors.New("middleware has called next before")
