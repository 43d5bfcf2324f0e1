package eventstore

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// LatestGeneration returns the generation that was created last.
func LatestGeneration(t *testing.T, p *Projector) (g generation) {
	if err := p.DB.Get(&g, generations+` ORDER BY generation DESC LIMIT 1`); err != nil {
		t.Fatal(err)
	}
	return g
}

// Advance runs one step of the leader.
func (p *Projector) Advance(ctx context.Context, lead *pg.Lead, projection Projection,
	g generation) (step, error) {
	return p.advance(ctx, lead, projection, g, new(reader))
}

// Step runs the leader's work on one generation, either the live one or the one that is being
// built, with at most batch facts at a time. It returns false if there is no such generation.
func (p *Projector) Step(t testing.TB, lead *pg.Lead, projection Projection, live bool,
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

// ContinuingReader returns a function like ReadAll that continues a window, and that keeps at most
// limit positions of it in memory.
func ContinuingReader(limit int) func(ctx context.Context, q sqlx.QueryerContext,
	from Checkpoint) ([]Fact,
	Checkpoint, error) {
	return (&reader{windowLimit: limit}).next
}
