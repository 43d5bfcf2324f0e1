package eventstore

import (
	"context"
	"io/fs"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
)

// A Projector is a component of a service: list it in quadrille.Config.Components, with nothing but
// its projections.
var (
	_ quadrille.Component        = (*Projector)(nil)
	_ quadrille.ProjectionLister = (*Projector)(nil)
)

// Migrations returns the migrations of the event store.
func (p *Projector) Migrations() map[string]fs.FS {
	return map[string]fs.FS{"eventstore": Migrations()}
}

// Open prepares the projections in the database of the service.
func (p *Projector) Open(ctx context.Context, h quadrille.Host) error {
	p.DB, p.Log = h.DB, h.Log
	return p.Prepare(ctx)
}

// ProjectionStates returns the progress of all projections.
func (p *Projector) ProjectionStates(ctx context.Context) ([]admin.Projection, error) {
	list, err := p.Progress(ctx)
	states := make([]admin.Projection, len(list))
	for i, progress := range list {
		states[i] = admin.Projection(progress)
	}
	return states, err
}

// Is tells that the error is quadrille.ErrBlocked.
func (e *BlockedError) Is(target error) bool { return target == quadrille.ErrBlocked }
