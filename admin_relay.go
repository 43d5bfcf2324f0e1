package quadrille

import (
	"encoding/json"
	"net/http"

	"github.com/quadrille-go/quadrille/outbox"
)

// RelayState is how the leader among the replicas finds what was committed.
type RelayState struct {
	outbox.Used
	Slot *outbox.Watched `json:"slot,omitempty"` // of the stream, where this replica could use one
}

func (s *Service) relayState(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	used, err := p.outbox.Used(r.Context())
	if err != nil {
		s.problem(w, err)
		return
	}
	state := RelayState{Used: used}
	if p.relay.Source != nil {
		watched, err := p.relay.Source.Watch(r.Context())
		if err != nil {
			s.problem(w, err)
			return
		}
		state.Slot = &watched
	}
	answer(w, state)
}

func (s *Service) relayUse(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Source string `json:"source"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody)).Decode(&ask)
	if err != nil || ask.Source != outbox.FromWindow && ask.Source != outbox.FromStream {
		writeProblem(w, http.StatusBadRequest, `the body must be {"source": "window"} or {"source": "stream"}`)
		return
	}
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	if p.relay.Source == nil && ask.Source == outbox.FromStream {
		writeProblem(w, http.StatusConflict, "this service was built without a stream: see the field Stream of quadrille.Service")
		return
	}
	if err := p.outbox.Use(r.Context(), ask.Source); err != nil {
		s.problem(w, err)
		return
	}
	s.relayState(w, r)
}
