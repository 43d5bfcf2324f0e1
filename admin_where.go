package quadrille

import (
	"context"

	"github.com/quadrille-go/quadrille/admin"
)

// maxWaiting is how many rows about one subject are shown.
const maxWaiting = 1000

func (o operator) Waiting(ctx context.Context, subject string) ([]admin.Waiting, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return nil, err
	}
	list := []admin.Waiting{}
	unpublished, err := p.outbox.Waiting(ctx, subject)
	if err != nil {
		return nil, err
	}
	for _, u := range unpublished {
		place := admin.InOutbox
		if u.Held {
			place = admin.Held
		}
		list = append(list, admin.Waiting{Place: place, ID: u.ID, Type: u.Type,
			Since: u.Since, Attempts: u.Attempts, Reason: u.Reason, Due: u.Due})
	}
	pending, err := p.inbox.Waiting(ctx, subject, maxWaiting)
	if err != nil {
		return nil, err
	}
	for _, r := range pending {
		place := admin.Place(r.Kind) // the kinds of pending rows are places
		if r.Due == nil {
			place = admin.IsParked
		}
		list = append(list, admin.Waiting{Place: place, ID: r.Key, Type: r.Type,
			Since: r.CreatedAt, Attempts: r.Attempts, Reason: r.Reason, Due: r.Due})
	}
	return list, nil
}

func (o operator) Held(ctx context.Context, after int64, limit int) ([]admin.HeldEvent, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return nil, err
	}
	held, err := p.outbox.Held(ctx, after, limit)
	list := make([]admin.HeldEvent, len(held))
	for i, h := range held {
		list[i] = admin.HeldEvent{Seq: h.Seq, Subject: h.Aggregate, ID: h.ID, Type: h.Type, Kind: h.Kind,
			Reason: h.Reason, Attempts: h.Attempts, Due: h.Due, Behind: h.Behind}
	}
	return list, err
}
