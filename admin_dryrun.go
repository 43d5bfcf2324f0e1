package quadrille

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/topology"
)

func (o operator) DryRun(ctx context.Context, id string) (admin.DryRun, error) {
	result := admin.DryRun{Publishes: []admin.Event{}}
	p, found, err := o.findParked(ctx, id)
	if err != nil {
		return result, err
	}
	if found.Kind == inbox.Evidence { // it would be parked again, or is no event at all
		result.Error = "it is malformed or contradictory and can only be discarded: " + found.Reason
		return result, nil
	}
	effects, err := p.consumer.DryRun(ctx, found)
	switch class := pg.ClassOf(err); {
	case errors.Is(err, engine.ErrCallNotRun):
		return result, admin.Problem{Status: http.StatusConflict,
			Detail: "it cannot be tried: " + err.Error()}
	case err != nil && (class == pg.Lost || class == pg.Busy || class == pg.Retry):
		return result, err
	case err != nil:
		result.Error = err.Error()
	}
	if err := add(&result, o.config.Name, effects); err != nil { // it was published in vain
		result.Error = err.Error()
	}
	return result, nil
}

// add lists what would have happened. Deadlines and requests have no id before they are written.
func add(r *admin.DryRun, service string, effects engine.Effects) error {
	now := time.Now()
	list := func(p events.Payload, after *time.Duration, call bool) error {
		record, err := events.Cause(events.Event{}, topology.SourceOf(service), now, p).Record()
		if err != nil {
			return err
		}
		e := publishedOf(record)
		e.ID = ""
		if call {
			e.Call = &admin.Call{}
		}
		if after != nil {
			due := record.Time.Add(*after)
			e.Due = &due
		}
		r.Publishes = append(r.Publishes, e)
		return nil
	}
	for _, p := range effects.Publish {
		if err := list(p, nil, false); err != nil {
			return err
		}
	}
	for _, d := range effects.Schedule {
		if err := list(d.Payload, &d.After, false); err != nil {
			return err
		}
	}
	for _, p := range effects.Request {
		if err := list(p, nil, true); err != nil {
			return err
		}
	}
	return nil
}
