package consumer

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
)

// The defaults of the bounds, for the tests.
const (
	BatchMax      = batchMax
	Prefetch      = prefetch
	PrefetchBytes = prefetchBytes
	Lanes         = leastLanes
	CallWorkers   = leastCallWorkers
	MaxAttempts   = maxAttempts
)

// ApplyIn is Apply without the effects.
func (p Participant[S]) ApplyIn(ctx context.Context, tx *sqlx.Tx, batch ...events.Event) (*S,
	[]Result, error) {
	return p.apply(ctx, tx, batch...)
}

// PauseOf is the pause of the engine, for the tests.
func (r Retry) PauseOf(attempts int) time.Duration { return engine.Retry(r).Pause(attempts) }

// Validate is validate for the tests.
func (b Bounds) Validate() error { return b.validate() }
