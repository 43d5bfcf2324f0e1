package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

type causeKey struct{}

func withCause(ctx context.Context, e events.Event) context.Context {
	return context.WithValue(ctx, causeKey{}, e)
}

// CauseOf returns the event that is being handled, or an empty one outside of a handler.
func CauseOf(ctx context.Context) events.Event {
	e, _ := ctx.Value(causeKey{}).(events.Event)
	return e
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

// Around runs the author's code for one event inside of the middleware, and within the time-out of
// its handler. The context has the event as the cause of what is published, and a logger with the
// ids of the event and its attempt; see zerolog.Ctx.
func Around(ctx context.Context, e events.Event, run Next) error {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	ctx = into(withCause(ctx, e), e)
	if s == nil {
		return run(ctx, e)
	}
	t := s.transactor
	eventType := e.Data.EventType()
	logger := t.log.With().EmbedObject(aboutEvent(e)).Int("attempt", s.attempt(keyOf(e))).Logger()
	ctx = logger.WithContext(ctx)
	if h := t.handlers.of[eventType]; h != nil && h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.Timeout)
		defer cancel()
	}
	return wrapped(ctx, t.middlewareOf(eventType), e, run)
}

// AroundPure is Around for a reaction, which is pure: without middleware there is nothing to
// do.
func AroundPure(ctx context.Context, e events.Event, run Next) error {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	if s == nil {
		return run(ctx, e)
	}
	if len(s.transactor.middlewareOf(e.Data.EventType())) == 0 {
		return run(ctx, e)
	}
	return Around(ctx, e, run)
}

// middlewareOf returns what is around the handler of a type, the outermost first.
func (t *transactor) middlewareOf(eventType string) []Middleware {
	if h := t.handlers.of[eventType]; h != nil && len(h.Middleware) > 0 {
		return slices.Concat(t.middleware, h.Middleware)
	}
	return t.middleware
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
