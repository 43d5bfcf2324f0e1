package quadrille

import (
	"context"
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

func (o operator) Relay(ctx context.Context) (state admin.Relay, err error) {
	p, err := o.parts(ctx)
	if err != nil {
		return state, err
	}
	used, err := p.outbox.SourceInUse(ctx)
	if err != nil {
		return state, err
	}
	state = admin.Relay{Wanted: string(used.Wanted), Source: string(used.Source), Token: used.Token,
		Since: used.Since, Leader: used.Leader}
	replicas, err := p.outbox.Replicas(ctx)
	if err != nil {
		return state, err
	}
	for _, r := range replicas {
		state.Replicas = append(state.Replicas, admin.Replica{ID: r.ID, Name: r.Name, Host: r.Host,
			PID: r.PID, Leads: r.Leads, Started: r.Started, Seen: r.Seen, Keep: r.Keep})
	}
	if err := warnings(ctx, p, &state); err != nil || p.relay.Source == nil {
		return state, err
	}
	slot, err := p.relay.Source.State(ctx)
	if err != nil {
		return state, err
	}
	state.Slot = &admin.Slot{Name: slot.Name, State: slot.State, Active: slot.Active,
		LagBytes: slot.LagBytes}
	if slot.Fault != nil {
		state.Warnings = append(state.Warnings, slot.Fault.Error())
	}
	return state, nil
}

func (o operator) UseSource(ctx context.Context, source string) (admin.Relay, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return admin.Relay{}, err
	}
	wanted := outbox.SourceName(source)
	if p.relay.Source == nil && wanted == outbox.FromStream {
		return admin.Relay{}, admin.Problem{Status: http.StatusConflict,
			Detail: "this service was built without a stream: see the field Stream of quadrille.Config"}
	}
	if err := p.outbox.UseSource(ctx, wanted); err != nil {
		return admin.Relay{}, err
	}
	return o.Relay(ctx)
}
