package consumer

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
)

// ApplyIn is Apply without the effects.
func (p Participant[S]) ApplyIn(ctx context.Context, tx *sqlx.Tx, batch ...events.Event) (*S,
	[]Result, error) {
	return p.apply(ctx, tx, batch...)
}

// PauseOf is pause for the tests.
func (r Retry) PauseOf(attempts int) time.Duration { return r.pause(attempts) }
