package quadrille

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/outbox"
)

func (o operator) Replay(ctx context.Context, r admin.ReplayRequest) (id int64, err error) {
	p, err := o.parts(ctx)
	if err != nil {
		return 0, err
	}
	if r.AgoSeconds > 0 {
		// Events have times of the database's clock, and another one may differ.
		if err := p.db.GetContext(ctx, &r.Since, `SELECT clock_timestamp() - $1 * interval
			'1 second'`, r.AgoSeconds); err != nil {
			return 0, err
		}
	}
	if r.Since != nil {
		return p.outbox.ReplaySince(ctx, *r.Since)
	}
	id, err = p.outbox.ReplayIDs(ctx, r.IDs...)
	if errors.Is(err, outbox.ErrNoSuchEvent) {
		err = admin.Problem{Status: http.StatusNotFound, Detail: err.Error()}
	}
	return id, err
}

func (o operator) Replays(ctx context.Context, after int64, limit int) (admin.ReplayPage, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return admin.ReplayPage{}, err
	}
	list, next, err := p.outbox.Replays(ctx, after, limit)
	page := admin.ReplayPage{Replays: make([]admin.Replay, len(list))}
	for i, r := range list {
		page.Replays[i] = admin.Replay{ID: r.ID, Since: r.Since, Events: r.Events,
			Published: r.Published, Refused: r.Refused, Held: r.Held, Reason: r.Reason,
			RequestedAt: r.RequestedAt, DoneAt: r.DoneAt, EndedAt: r.EndedAt}
	}
	if next != 0 {
		page.Next = strconv.FormatInt(next, 10)
	}
	return page, err
}
