package quadrille

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/outbox"
)

// warnings tells an operator what is wrong with the relays of a database.
func warnings(ctx context.Context, p *parts, state *admin.Relay) error {
	for _, r := range state.Replicas {
		if r.Name != p.relay.Name {
			state.Warnings = append(state.Warnings, fmt.Sprintf("the service %s on %s (process %d) has a "+
				"relay on this database, which belongs to %s: one of the two publishes nothing; give each a "+
				"database of its own", r.Name, r.Host, r.PID, p.relay.Name))
		}
	}
	old, err := p.outbox.OldSnapshot(ctx)
	if old != nil {
		state.Warnings = append(state.Warnings, fmt.Sprintf("the session %d of role %s (%q) has had a "+
			"transaction open for %s: old versions of rows stay, and tables that are written all the time "+
			"get slow; SELECT pg_terminate_backend(%d) ends it",
			old.PID, old.Role, old.Application, time.Duration(old.Seconds)*time.Second, old.PID))
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
	state := admin.Relay{Wanted: string(used.Wanted), Source: string(used.Source), Token: used.Token,
		Since: used.Since, Leader: used.Leader}
	replicas, err := p.outbox.Replicas(r.Context())
	for _, r := range replicas {
		state.Replicas = append(state.Replicas, admin.Replica{ID: r.ID, Name: r.Name, Host: r.Host,
			PID: r.PID, Leads: r.Leads, Started: r.Started, Seen: r.Seen, Keep: r.Keep})
	}
	if err == nil {
		err = warnings(r.Context(), p, &state)
	}
	if err == nil && p.relay.Source != nil {
		var slot outbox.SlotState
		if slot, err = p.relay.Source.State(r.Context()); err == nil {
			state.Slot = &admin.Slot{Name: slot.Name, State: slot.State, Active: slot.Active,
				LagBytes: slot.LagBytes}
		}
		if slot.Fault != nil {
			state.Warnings = append(state.Warnings, slot.Fault.Error())
		}
	}
	if err != nil {
		s.problem(w, err)
		return
	}
	answer(w, state)
}

func (s *Service) relayUse(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Source outbox.SourceName `json:"source"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody)).Decode(&request)
	if err != nil || request.Source != outbox.FromWindow && request.Source != outbox.FromStream {
		writeProblem(w, http.StatusBadRequest,
			`the body must be {"source": "window"} or {"source": "stream"}`)
		return
	}
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	if p.relay.Source == nil && request.Source == outbox.FromStream {
		writeProblem(w, http.StatusConflict, "this service was built without a stream: see the field "+
			"Stream of quadrille.Config")
		return
	}
	if err := p.outbox.UseSource(r.Context(), request.Source); err != nil {
		s.problem(w, err)
		return
	}
	s.relayState(w, r)
}
