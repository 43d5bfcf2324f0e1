package consumer

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/topology"
)

// Consumer is what a service does about events, as its author has written it. Package quadrille
// makes one of its Config and runs it.
type Consumer struct {
	Name     string // of the service in the topology
	Topology topology.Topology
	Handlers []Handler
	Bounds
	// Middleware wraps every handler, reaction and call, the first one outermost.
	Middleware []Middleware
}

// Compile returns the consumer as the engine sees it; see Validate.
func (c Consumer) Compile() engine.Service {
	b := c.Bounds.orDefaults()
	s := engine.Service{Name: c.Name, Topology: c.Topology, Bounds: b.compile(),
		Middleware: compiled(c.Middleware)}
	for _, h := range c.Handlers {
		s.Handlers = append(s.Handlers, h.compile(b))
	}
	return s
}

// Execute writes effects in tx, caused by the event that is handled in ctx; outside of a handler
// they have no cause. It refuses what the topology does not declare. Handlers use the methods of
// quadrille.Service.
func Execute(ctx context.Context, g *engine.Engine, tx *sqlx.Tx, e Effects) error {
	return g.Write(g.WithStatements(ctx), tx, engine.Result{Cause: CauseOf(ctx), Effects: e.compile()})
}

// Apply reacts to a batch in tx, in its order: it loads and locks what the batch needs, runs the
// reactions in memory, saves what has changed, and executes the effects. It returns the state after
// the batch, and the effects that it has executed. quadrille.Execute uses it with commands;
// deliveries and deadlines take the same way.
//
// Any error means that tx must be rolled back. A *Refusal is the answer "no" to a command. An error
// that wraps pg.ErrRaced means that another replica inserted the same row first: run the
// transaction again.
func Apply[S any](ctx context.Context, g *engine.Engine, tx *sqlx.Tx, p Participant[S],
	batch ...events.Event) (*S, []Result, error) {
	s, results, err := p.apply(g.WithStatements(ctx), tx, batch...)
	if err != nil {
		return nil, nil, err
	}
	return s, results, g.Write(ctx, tx, compiledResults(results)...)
}

// Stats are the counters of a consumer since the start of the process.
type Stats struct {
	Handled, Duplicates, Delayed, Parked, Batches int64
	// Dropped counts malformed messages that were not kept, since too many of their source are parked.
	Dropped int64
	// Hanging is how many runs of handlers have not returned although their time is over, now.
	Hanging int64
}
