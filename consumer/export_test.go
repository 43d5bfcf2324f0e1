package consumer

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
)

// ApplyIn is Apply without the effects.
func (p Participant[S]) ApplyIn(ctx context.Context, tx *sqlx.Tx, batch ...events.Event) (*S,
	[]Result, error) {
	return p.apply(ctx, tx, batch...)
}
