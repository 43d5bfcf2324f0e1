package quadrille

import (
	"context"
	"errors"
	"net/http"

	"github.com/quadrille-go/quadrille/admin"
)

// BreakerLister is a component that has circuit breakers around outside calls, such as
// resilience.Breakers.
type BreakerLister interface{ BreakerStates() []admin.Breaker }

// breakers returns the circuit breakers of this replica.
func (c Config) breakers() []admin.Breaker {
	all := []admin.Breaker{}
	for _, component := range c.Components {
		if lister, ok := component.(BreakerLister); ok {
			all = append(all, lister.BreakerStates()...)
		}
	}
	return all
}

func (o operator) Breakers(context.Context) ([]admin.Breaker, error) {
	return o.config.breakers(), nil
}

// ProjectionLister is a component with projections that a person may look at and rebuild, such as
// eventstore.Projector.
type ProjectionLister interface {
	ProjectionStates(ctx context.Context) ([]admin.Projection, error)
	// Rebuild begins to fill a projection again. Its error wraps ErrNoSuchProjection, or ErrBlocked
	// with what is in the way.
	Rebuild(ctx context.Context, name string) error
}

// The errors of a ProjectionLister that are not the service's fault.
var (
	ErrNoSuchProjection = errors.New("no such projection")
	ErrBlocked          = errors.New("blocked")
)

func (o operator) Projections(ctx context.Context) ([]admin.Projection, error) {
	if err := o.Open(ctx); err != nil {
		return nil, err
	}
	all := []admin.Projection{}
	for _, lister := range o.projectionListers() {
		list, err := lister.ProjectionStates(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func (o operator) projectionListers() (all []ProjectionLister) {
	for _, c := range o.config.Components {
		if lister, ok := c.(ProjectionLister); ok {
			all = append(all, lister)
		}
	}
	return all
}

func (o operator) Rebuild(ctx context.Context, projection string) ([]admin.Projection, error) {
	if err := o.Open(ctx); err != nil {
		return nil, err
	}
	err := ErrNoSuchProjection
	for _, lister := range o.projectionListers() {
		if err = lister.Rebuild(ctx, projection); !errors.Is(err, ErrNoSuchProjection) {
			break
		}
	}
	switch {
	case errors.Is(err, ErrBlocked):
		return nil, admin.Problem{Status: http.StatusConflict, Detail: err.Error()}
	case errors.Is(err, ErrNoSuchProjection):
		return nil, admin.Problem{Status: http.StatusNotFound,
			Detail: "there is no such projection: GET /admin/projections lists them"}
	case err != nil:
		return nil, err
	}
	return o.Projections(ctx)
}
