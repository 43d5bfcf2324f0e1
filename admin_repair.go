package quadrille

import (
	"context"
	"strconv"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/logfields"
)

func (o operator) Redrive(ctx context.Context, r admin.RepairRequest) (admin.Repaired, error) {
	return o.repair(ctx, "redriven", r, (*inbox.Inbox).Redrive)
}

func (o operator) Discard(ctx context.Context, r admin.RepairRequest) (admin.Repaired, error) {
	return o.repair(ctx, "discarded", r, (*inbox.Inbox).Discard)
}

// repair changes parked rows and logs it, in addition to the record in the database.
func (o operator) repair(ctx context.Context, done string, r admin.RepairRequest,
	do func(i *inbox.Inbox, ctx context.Context, operator, reason string,
		keys ...string) (inbox.Repaired, error)) (admin.Repaired, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return admin.Repaired{}, err
	}
	repaired, err := do(p.inbox, ctx, r.Operator, r.Reason, r.IDs...)
	if err != nil {
		return admin.Repaired{}, err
	}
	for _, p := range repaired.Rows {
		o.logRepair(p, r.Operator, r.Reason, done)
	}
	return admin.Repaired{Done: repaired.Done, Evidence: repaired.Evidence,
		Absent: repaired.Absent}, nil
}

// logRepair logs what an operator did to a parked row, with the ids of its event.
func (o operator) logRepair(p inbox.Pending, by, reason, done string) {
	record := p.Record()
	record.ID, record.Type = p.Key, p.Type
	o.config.Log.Info().EmbedObject(logfields.Of(record)).Str("operator", by).Str("reason", reason).
		Msg("parked event was " + done)
}

func (o operator) Repairs(ctx context.Context, after int64, limit int) (admin.RepairPage, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return admin.RepairPage{}, err
	}
	list, next, err := p.inbox.Repairs(ctx, after, limit)
	page := admin.RepairPage{Repairs: make([]admin.Repair, len(list))}
	for i, r := range list {
		page.Repairs[i] = admin.Repair{ID: r.ID, Owner: r.Owner, Parked: r.Key, Type: r.Type,
			Action: r.Action, Operator: r.Operator, Reason: r.Reason, ParkedFor: r.ParkedFor, At: r.At}
	}
	if next != 0 {
		page.Next = strconv.FormatInt(next, 10)
	}
	return page, err
}
