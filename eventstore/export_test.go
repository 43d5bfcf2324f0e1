package eventstore

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
)

// Begun is the generation that was begun last.
func Begun(t *testing.T, p *Projector) (g generation) {
	if err := p.DB.Get(&g, generations+` ORDER BY generation DESC LIMIT 1`); err != nil {
		t.Fatal(err)
	}
	return g
}

// Advance is one step of the leader.
func (p *Projector) Advance(ctx context.Context, lead *postgres.Lead, projection Projection, g generation) (more bool, err error) {
	return p.advance(ctx, lead, projection, g, new(reader))
}

// ReadOn is ReadAll by a reader that goes on, and takes so few places into memory.
func ReadOn(most int) func(ctx context.Context, q sqlx.QueryerContext, from Place) ([]Fact, Place, error) {
	return (&reader{most: most}).next
}
