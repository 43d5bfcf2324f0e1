package eventstore

import (
	"context"
	"testing"

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
	return p.advance(ctx, lead, projection, g)
}
