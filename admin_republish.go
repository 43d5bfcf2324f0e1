package quadrille

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/outbox"
)

// republish takes a request to publish again; the leading replica executes it.
func (s *Service) republish(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		IDs   []string   `json:"ids"`
		Since *time.Time `json:"since"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&ask)
	for _, id := range ask.IDs {
		if _, bad := events.ParseID(id); bad != nil {
			err = bad
		}
	}
	if err != nil || len(ask.IDs) > maxIDs || (len(ask.IDs) > 0) == (ask.Since != nil) {
		writeProblem(w, http.StatusBadRequest, `the body must be {"ids": [1 to 1000 UUIDs]} or {"since": a time as in RFC 3339}`)
		return
	}
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	var request int64
	if ask.Since != nil {
		request, err = p.outbox.RepublishSince(r.Context(), *ask.Since)
	} else {
		request, err = p.outbox.RepublishIDs(r.Context(), ask.IDs...)
	}
	switch {
	case errors.Is(err, outbox.ErrNoSuchEvent):
		writeProblem(w, http.StatusNotFound, err.Error())
	case err != nil:
		s.problem(w, err)
	default:
		answer(w, map[string]int64{"id": request})
	}
}

func (s *Service) republications(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	list, err := p.outbox.Republications(r.Context())
	if err != nil {
		s.problem(w, err)
		return
	}
	answer(w, list)
}
