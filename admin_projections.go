package quadrille

import (
	"context"
	"errors"
	"net/http"

	"github.com/quadrille-go/quadrille/admin"
)

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

func (s *Service) projections(w http.ResponseWriter, r *http.Request) {
	if s.partsFor(w, r) == nil {
		return
	}
	all := []admin.Projection{}
	for _, c := range s.config.Components {
		lister, ok := c.(ProjectionLister)
		if !ok {
			continue
		}
		list, err := lister.ProjectionStates(r.Context())
		if err != nil {
			s.problem(w, err)
			return
		}
		all = append(all, list...)
	}
	answer(w, all)
}

func (s *Service) rebuild(w http.ResponseWriter, r *http.Request) {
	if s.partsFor(w, r) == nil {
		return
	}
	err := ErrNoSuchProjection
	for _, c := range s.config.Components {
		if lister, ok := c.(ProjectionLister); ok && errors.Is(err, ErrNoSuchProjection) {
			err = lister.Rebuild(r.Context(), r.PathValue("name"))
		}
	}
	switch {
	case errors.Is(err, ErrBlocked):
		writeProblem(w, http.StatusConflict, err.Error())
	case errors.Is(err, ErrNoSuchProjection):
		writeProblem(w, http.StatusNotFound,
			"there is no such projection: GET /admin/projections lists them")
	case err != nil:
		s.problem(w, err)
	default:
		s.projections(w, r)
	}
}
