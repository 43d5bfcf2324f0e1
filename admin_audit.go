package quadrille

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// maxContradictions is how many contradictions of the kit's own tables one audit reports.
const maxContradictions = 1000

func (o operator) Published(ctx context.Context, after int64, limit int) ([]admin.Published,
	error) {
	p, err := o.parts(ctx)
	if err != nil {
		return nil, err
	}
	history, err := p.outbox.Published(ctx, after, limit)
	list := make([]admin.Published, len(history))
	for i, h := range history {
		list[i] = admin.Published{Seq: h.Seq, ID: h.ID, Type: h.Type, Subject: h.Aggregate, At: h.At,
			Content: h.Content, Waiting: h.Waiting}
	}
	return list, err
}

// Audit runs in one snapshot, so that traffic cannot look like a contradiction.
func (o operator) Audit(ctx context.Context) (list []admin.Finding, err error) {
	p, err := o.parts(ctx)
	if err != nil {
		return nil, err
	}
	err = pg.InSnapshot(ctx, p.db, func(tx *sqlx.Tx) error {
		list, err = o.findings(ctx, p, tx)
		return err
	})
	return list, err
}

func (o operator) findings(ctx context.Context, p *parts, tx *sqlx.Tx) ([]admin.Finding, error) {
	list := []admin.Finding{}
	contradictions, err := p.inbox.Audit(ctx, tx, maxContradictions)
	if err != nil {
		return nil, err
	}
	for _, c := range contradictions {
		list = append(list, admin.Finding{Subject: c.Subject, Rule: c.Rule, Detail: c.Detail})
	}
	if o.config.Audit == nil {
		return list, nil
	}
	own, err := o.config.Audit(ctx, tx)
	return append(list, own...), err
}
