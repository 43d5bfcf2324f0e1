package quadrille

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/quadrille-go/quadrille/outbox"
)

// RelayState is how the leader among the replicas finds what was committed.
type RelayState struct {
	outbox.SourceState
	// of the stream, where this replica could use one
	Slot     *outbox.SlotState `json:"slot,omitempty"`
	Replicas []outbox.Replica  `json:"replicas"` // that run, the leader first
	Warnings []string          `json:"warnings,omitempty"`
}

// look adds who relays, and what an operator should see to.
func (state *RelayState) look(ctx context.Context, p *parts) (err error) {
	if state.Replicas, err = p.outbox.Replicas(ctx); err != nil {
		return err
	}
	for _, r := range state.Replicas {
		if r.Name != p.relay.Name {
			state.Warnings = append(state.Warnings, fmt.Sprintf("the service %s on %s (process %d) has a "+
				"relay on this database, which belongs to %s: "+
				"one of the two publishes nothing; give each a database of its own", r.Name, r.Host, r.PID,
				p.relay.Name))
		}
	}
	old, err := p.outbox.OldSnapshot(ctx)
	if old != nil {
		state.Warnings = append(state.Warnings, fmt.Sprintf("the session %d of role %s (%q) has had a "+
			"transaction open for %s: old versions of rows stay, "+
			"and tables that are written all the time get slow; SELECT pg_terminate_backend(%d) ends it",
			old.PID, old.Role, old.Application, time.Duration(old.Seconds)*time.Second, old.PID))
	}
	if state.Slot != nil && state.Slot.Fault != nil {
		state.Warnings = append(state.Warnings, state.Slot.Fault.Error())
	}
	return err
}

func (s *Service) relayState(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	used, err := p.outbox.SourceInUse(r.Context())
	if err != nil {
		s.problem(w, err)
		return
	}
	state := RelayState{SourceState: used}
	if p.relay.Source != nil {
		watched, err := p.relay.Source.State(r.Context())
		if err != nil {
			s.problem(w, err)
			return
		}
		state.Slot = &watched
	}
	if err := state.look(r.Context(), p); err != nil {
		s.problem(w, err)
		return
	}
	answer(w, state)
}

func (s *Service) relayUse(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Source string `json:"source"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody)).Decode(&ask)
	if err != nil || ask.Source != outbox.FromWindow && ask.Source != outbox.FromStream {
		writeProblem(w, http.StatusBadRequest,
			`the body must be {"source": "window"} or {"source": "stream"}`)
		return
	}
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	if p.relay.Source == nil && ask.Source == outbox.FromStream {
		writeProblem(w, http.StatusConflict, "this service was built without a stream: see the field "+
			"Stream of quadrille.Service")
		return
	}
	if err := p.outbox.UseSource(r.Context(), ask.Source); err != nil {
		s.problem(w, err)
		return
	}
	s.relayState(w, r)
}
