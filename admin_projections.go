package quadrille

import (
	"errors"
	"net/http"

	"github.com/quadrille-go/quadrille/eventstore"
)

func (s *Service) projections(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	list := []eventstore.Progress{}
	if p.projector != nil {
		var err error
		if list, err = p.projector.Progress(r.Context()); err != nil {
			s.problem(w, err)
			return
		}
	}
	answer(w, list)
}

func (s *Service) rebuild(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	err := eventstore.ErrNoSuchProjection
	if p.projector != nil {
		err = p.projector.Rebuild(r.Context(), r.PathValue("name"))
	}
	blocked, isBlocked := errors.AsType[*eventstore.BlockedError](err)
	switch {
	case isBlocked:
		writeProblem(w, http.StatusConflict, blocked.Error())
	case errors.Is(err, eventstore.ErrNoSuchProjection):
		writeProblem(w, http.StatusNotFound,
			"there is no such projection: GET /admin/projections lists them")
	case err != nil:
		s.problem(w, err)
	default:
		s.projections(w, r)
	}
}
