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
func (p *Projector) Advance(ctx context.Context, lead *postgres.Lead, projection Projection,
	g generation) (step, error) {
	return p.advance(ctx, lead, projection, g, new(reader))
}

// Step is what the leader does at once for the live generation of a projection, or for the one that
// is being built; done is false when there is none. It takes so few facts.
func (p *Projector) Step(t testing.TB, lead *postgres.Lead, projection Projection, live bool,
	batch int) (done bool) {
	t.Helper()
	var g []generation
	err := p.DB.Select(&g, generations+` WHERE name = $1 AND live = $2`, projection.Name, live)
	if err == nil && len(g) > 0 {
		_, err = p.follow(t.Context(), lead, projection, g[0], &reader{batch: batch})
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(g) > 0
}

// ReadOn is ReadAll by a reader that goes on, and takes so few places into memory.
func ReadOn(most int) func(ctx context.Context, q sqlx.QueryerContext, from Checkpoint) ([]Fact,
	Checkpoint, error) {
	return (&reader{most: most}).next
}
