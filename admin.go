package quadrille

import (
	"context"
	"errors"
	"net/http"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/topology"
)

// maxCalls is how many calls of one subject the history contains.
const maxCalls = 1000

// Admin returns the handler of the routes under /admin/, which the command line and admin.Client
// use; see admin.Handler. It has no authentication of its own: wrap it, and do not serve it to
// everybody.
func (s *Service) Admin() http.Handler {
	return admin.Handler(operator{s}, func(err error) admin.Problem {
		if pg.ClassOf(err) == pg.BadData {
			return admin.Problem{Status: http.StatusBadRequest,
				Detail: "the request contains text that PostgreSQL cannot store"}
		}
		s.config.Log.Error().Err(err).Msg("admin request")
		return admin.Problem{Status: http.StatusServiceUnavailable,
			Detail: "the service's database cannot be read"}
	})
}

// operator is a service as its operator sees it.
type operator struct{ *Service }

var _ admin.Service = operator{}

func (o operator) History(ctx context.Context, subject string) ([]admin.Event, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return nil, err
	}
	records, err := p.outbox.History(ctx, subject)
	if err != nil {
		return nil, err
	}
	calls, err := p.inbox.Calls(ctx, subject, maxCalls)
	if err != nil {
		return nil, err
	}
	history := make([]admin.Event, 0, len(records)+len(calls))
	for _, r := range records {
		history = append(history, publishedOf(r))
	}
	for _, c := range calls {
		history = append(history, o.callOf(c))
	}
	return history, nil
}

func (o operator) Event(ctx context.Context, id string) (admin.Event, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return admin.Event{}, err
	}
	r, err := p.outbox.Find(ctx, id)
	if !errors.Is(err, outbox.ErrNoSuchEvent) {
		return publishedOf(r), err
	}
	c, err := p.inbox.FindCall(ctx, id)
	if errors.Is(err, inbox.ErrNotFound) {
		err = admin.Problem{Status: http.StatusNotFound,
			Detail: "the history has no event and no call with this id"}
	}
	return o.callOf(c), err
}

func (o operator) callOf(c inbox.CallRecord) admin.Event {
	return admin.Event{
		ID: c.ID, Type: c.Type, Source: topology.SourceOf(o.config.Name), Subject: c.Subject,
		CorrelationID: c.CorrelationID, CausationID: c.CausationID, Time: c.RequestedAt,
		Data: c.Request, Due: c.Due, Call: &admin.Call{
			Attempts: c.Attempts, Reason: c.Reason, Parked: c.Due == nil && c.AnsweredAt == nil,
			Answer: c.AnswerType, AnswerData: c.Answer, AnsweredAt: c.AnsweredAt,
		},
	}
}

func publishedOf(r events.Record) admin.Event {
	return admin.Event{
		ID: r.ID, Type: r.Type, Source: r.Source, Subject: r.Subject, CorrelationID: r.CorrelationID,
		CausationID: r.CausationID, Time: r.Time, Data: r.Data,
	}
}

func (o operator) Handled(ctx context.Context, ids []string) ([]admin.Handled, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return nil, err
	}
	handled, err := p.inbox.Handled(ctx, ids...)
	all := make([]admin.Handled, len(handled))
	for i, h := range handled {
		all[i] = admin.Handled{Owner: h.Owner, ID: h.ID, Type: h.Type, At: h.At,
			Unhandled: h.Unhandled, Content: h.Content}
	}
	return all, err
}

func (o operator) Parked(ctx context.Context, after string, limit int) (admin.ParkedPage, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return admin.ParkedPage{}, err
	}
	list, next, err := p.inbox.ListParked(ctx, after, limit)
	if errors.Is(err, inbox.ErrNotFound) {
		err = admin.Problem{Status: http.StatusBadRequest,
			Detail: "after: must be the field next of an earlier page"}
	}
	page := admin.ParkedPage{Parked: make([]admin.Parked, len(list)), Next: next}
	for i, p := range list {
		page.Parked[i] = admin.Parked{Owner: p.Owner, ID: p.Key, Kind: string(p.Kind), Type: p.Type,
			Subject: p.Subject, Size: p.Size, Attempts: p.Attempts, Reason: p.Reason,
			CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt}
	}
	return page, err
}

func (o operator) ParkedEvent(ctx context.Context, id string) (admin.ParkedEvent, error) {
	p, found, err := o.findParked(ctx, id)
	if err != nil {
		return admin.ParkedEvent{}, err
	}
	e := parkedOf(found)
	e.Original, err = inbox.NewEditor(p.inbox).Original(ctx, found.Owner, found.Key)
	return e, err
}

func parkedOf(found inbox.Pending) admin.ParkedEvent {
	return admin.ParkedEvent{
		Parked: admin.Parked{Owner: found.Owner, ID: found.Key, Kind: string(found.Kind),
			Type: found.Type, Subject: found.Attributes.V.Subject, Size: int64(len(found.Body)),
			Attempts: found.Attempts, Reason: found.Reason, CreatedAt: found.CreatedAt,
			UpdatedAt: found.UpdatedAt},
		Exchange: found.Exchange, RoutingKey: found.RoutingKey, Attributes: found.Attributes.V,
		Body: found.Body,
	}
}

func (o operator) findParked(ctx context.Context, id string) (*parts, inbox.Pending, error) {
	p, err := o.parts(ctx)
	if err != nil {
		return nil, inbox.Pending{}, err
	}
	found, err := p.inbox.Find(ctx, id)
	if errors.Is(err, inbox.ErrNotFound) || err == nil && found.Due != nil {
		err = admin.Problem{Status: http.StatusNotFound, Detail: "nothing is parked under this id"}
	}
	return p, found, err
}
