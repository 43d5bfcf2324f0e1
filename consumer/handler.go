package consumer

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
)

// Handler is what a service does about events of some types. Handle, Call and a Participant's
// Handler method make one.
type Handler struct {
	samples []events.Payload
	// apply handles a batch in tx and returns the effects of each event.
	apply func(ctx context.Context, tx *sqlx.Tx, batch []events.Event) ([]engine.Result, error)
	// call, if set, runs first and outside of any transaction; it returns the answer.
	call    func(ctx context.Context, e events.Event) (events.Payload, error)
	options Options
	service string // of a participant
	fault   error  // of a participant's fields
}

// Types returns the types that h handles.
func (h Handler) Types() []string {
	types := make([]string, len(h.samples))
	for i, s := range h.samples {
		types[i] = s.EventType()
	}
	return types
}

// Handle makes a handler of a function that runs its own SQL in the transaction of the inbox: it
// takes effect once per event. An error rolls back, and the event is tried again later. The context
// carries the event as the cause of what is published, see CauseOf, and a logger that names it, see
// zerolog.Ctx.
func Handle[T events.Payload](handle func(ctx context.Context, tx *sqlx.Tx,
	e events.Of[T]) error) Handler {
	var sample T
	return Handler{
		samples: []events.Payload{sample},
		apply: func(ctx context.Context, tx *sqlx.Tx, batch []events.Event) ([]engine.Result,
			error) {
			for _, e := range batch {
				if err := engine.Safely(ctx, e, func() error {
					return engine.Around(ctx, e, func(ctx context.Context, e events.Event) error {
						typed, _ := events.As[T](e) // dispatch is by type
						return handle(ctx, tx, typed)
					})
				}); err != nil {
					return nil, err
				}
			}
			return nil, nil
		},
	}
}

// Call makes the handler of an outside call: of a request that a reaction has made, see Request, or
// of an event of another service. The request is stored first; then one of Bounds.CallWorkers makes
// the call, within Bounds.CallTimeout, with no transaction open and no lane held up. The call may
// be made more than once for a request, and e.ID is the same each time: use it as the idempotency
// key.
//
// The answer, unless nil, is delivered to the service's own reaction to its type, in the
// transaction that records the answer, with the id of the request as its own. An answer to which
// the service has no reaction is published. An error is retried as any other, but see RetryAfter.
func Call[T events.Payload](call func(ctx context.Context, e events.Of[T]) (events.Payload,
	error)) Handler {
	var sample T
	return Handler{
		samples: []events.Payload{sample},
		apply:   nil, // apart from the batches of lanes
		call: func(ctx context.Context, e events.Event) (answer events.Payload, err error) {
			err = engine.Safely(ctx, e, func() error {
				return engine.Around(ctx, e, func(ctx context.Context, e events.Event) error {
					typed, _ := events.As[T](e)
					answer, err = call(ctx, typed)
					return err
				})
			})
			return answer, err
		},
	}
}

// Handler makes a handler of the participant, whose reactions run in batches.
func (p Participant[S]) Handler() Handler {
	return Handler{
		samples: p.samples(), service: p.Name, fault: p.validate(),
		apply: func(ctx context.Context, tx *sqlx.Tx, batch []events.Event) ([]engine.Result,
			error) {
			_, results, err := p.apply(ctx, tx, batch...)
			return compiledResults(results), err
		},
	}
}

// compile returns the handler as the engine sees it. What it has no policy for has that of b.
func (h Handler) compile(b Bounds) engine.Handler {
	o := h.options
	return engine.Handler{Samples: h.samples, React: h.apply, Call: h.call,
		Retry: engine.Retry(o.Retry.or(b.Retry)), Timeout: o.Timeout, Concurrency: o.Concurrency,
		Middleware: compiled(o.Middleware)}
}
