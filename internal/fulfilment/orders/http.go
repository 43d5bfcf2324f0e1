package orders

import (
	"context"
	"net/http"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

const (
	defaultListed  = 50
	maxListed      = 500
	maxDeadlineSec = 7 * 24 * 3600
)

type api struct {
	service *quadrille.Service
	own     consumer.Participant[State]
	within  time.Duration // by when an order must be confirmed, unless it says otherwise
	placing *web.Group[placing]
}

func routes(service *quadrille.Service, own consumer.Participant[State], within time.Duration,
	log zerolog.Logger) http.Handler {
	a := api{service: service, own: own, within: within}
	a.placing = web.NewGroup(service, a.placeAll)
	mux := http.NewServeMux()
	mux.Handle("POST /orders", web.Handle(log, a.place))
	mux.Handle("GET /orders", web.Handle(log, a.list))
	mux.Handle("GET /orders/{order}", web.Handle(log, a.show))
	mux.Handle("POST /orders/{order}/cancellation", web.Handle(log, a.cancel))
	return mux
}

// placing is an order of a request. Requests that share a transaction keep their own traces.
type placing struct {
	Place
	trace string // the trace context of the request; empty if it is not traced
}

// View is an order as the API shows it.
type View struct {
	ID        string              `json:"id"`
	State     OrderState          `json:"state"`
	Reason    string              `json:"reason,omitzero"`
	Customer  string              `json:"customer,omitzero"`
	Currency  string              `json:"currency,omitzero"`
	Amount    int64               `json:"amount,omitzero"`
	Lines     []fulfilment.Line   `json:"lines,omitempty"`
	Address   *fulfilment.Address `json:"address,omitzero"`
	Adopted   bool                `json:"adopted,omitzero"`
	PlacedAt  time.Time           `json:"placed_at"`
	Deadline  time.Time           `json:"deadline,omitzero"`
	UpdatedAt time.Time           `json:"updated_at"`
}

func view(o Order) View {
	v := View{
		ID: o.OrderID, State: o.State, Reason: o.Reason, Customer: o.Customer, Currency: o.Currency,
		Amount: o.Amount,
		Lines:  o.Lines.V, Adopted: o.Adopted, PlacedAt: o.PlacedAt.UTC(), UpdatedAt: o.UpdatedAt.UTC(),
	}
	if !o.Adopted {
		v.Address, v.Deadline = &o.Address.V, o.Deadline.UTC()
	}
	return v
}

func (a api) place(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Customer string             `json:"customer"`
		Currency string             `json:"currency"`
		Lines    []fulfilment.Line  `json:"lines"`
		Address  fulfilment.Address `json:"address"`
		// Card is a token of the payment provider; optional, else the customer's account pays.
		Card string `json:"card"`
		// DeadlineSeconds is by when the order must be confirmed; optional.
		DeadlineSeconds *int64 `json:"deadline_seconds"`
	}
	body, err := web.ReadJSON(w, r, &in)
	if err != nil {
		return err
	}
	within := a.within
	if s := in.DeadlineSeconds; s != nil {
		if *s < 1 || *s > maxDeadlineSec {
			return web.Problemf(http.StatusBadRequest, "deadline_seconds: must be between 1 and %d",
				maxDeadlineSec)
		}
		within = time.Duration(*s) * time.Second
	}
	command := Place{Within: within, OrderPlaced: fulfilment.OrderPlaced{
		OrderID: events.NewID(), Customer: in.Customer, Currency: in.Currency, Lines: in.Lines,
		Address: in.Address, Card: in.Card,
	}}
	if err := web.Invalid(command.Validate()); err != nil {
		return err
	}
	return a.placing.Once(w, r, body, placing{command, quadrilleotel.TraceParent(r.Context())})
}

// placeAll takes orders, each with an id of its own.
func (a api) placeAll(ctx context.Context, _ *sqlx.Tx, places []placing) ([]web.Answer, error) {
	commands := make([]events.Event, len(places))
	for i, p := range places {
		commands[i] = events.Command(p.Place, time.Time{})
		commands[i].TraceParent = p.trace
	}
	s, _, err := quadrille.Apply(ctx, a.service, a.own, commands...)
	if err != nil {
		return nil, err
	}
	answers := make([]web.Answer, len(places))
	for i, p := range places {
		o, _ := s.Orders.Get(p.OrderID)
		answers[i] = web.Answer{Status: http.StatusCreated, Location: "/orders/" + o.OrderID,
			Body: view(o)}
	}
	return answers, nil
}

func (a api) cancel(w http.ResponseWriter, r *http.Request) error {
	id, err := web.OrderID(r)
	if err != nil {
		return err
	}
	s, err := quadrille.Execute(r.Context(), a.service, a.own, Cancel{OrderID: id})
	if err != nil {
		return err
	}
	o, known := s.Orders.Get(id)
	switch {
	case !known:
		return web.NotFound("order", id)
	case o.State == Confirmed:
		return web.Problem{Status: http.StatusConflict, Title: "Order is confirmed", Detail: "order " +
			id + " is confirmed and can no longer be cancelled"}
	}
	return web.Write(w, http.StatusOK, view(o))
}

func (a api) show(w http.ResponseWriter, r *http.Request) error {
	id, err := web.OrderID(r)
	if err != nil {
		return err
	}
	o, err := web.GetOne[Order](r.Context(), a.service, "SELECT "+web.Columns[Order]()+
		` FROM orders WHERE order_id = $1`, id)
	if err != nil {
		return err
	}
	if o == nil {
		return web.NotFound("order", id)
	}
	return web.Write(w, http.StatusOK, view(*o))
}

// list returns orders, newest first; after is the id of the last one of the page before.
func (a api) list(w http.ResponseWriter, r *http.Request) error {
	limit, err := web.Page(r, defaultListed, maxListed, "customer", "state")
	if err != nil {
		return err
	}
	q := r.URL.Query()
	state, after := OrderState(q.Get("state")), q.Get("after")
	if state != "" && state != Placed && state != Confirmed && state != Cancelled {
		return web.Problemf(http.StatusBadRequest, "state: must be placed, confirmed or cancelled")
	}
	if customer := q.Get("customer"); customer != "" {
		if err := web.Check(fulfilment.CheckName("customer", customer)); err != nil {
			return err
		}
	} else if err := web.RequireAdmin(r.Context()); err != nil {
		return err // these are the orders of all customers
	}
	if after == "" {
		after = "ffffffff-ffff-ffff-ffff-ffffffffffff"
	}
	if err := fulfilment.CheckOrderID(after); err != nil {
		return web.Problemf(http.StatusBadRequest, "after: must be the id of an order")
	}
	found, err := web.GetAll[Order](r.Context(), a.service, "SELECT "+web.Columns[Order]()+
		` FROM orders
		WHERE ($1 = '' OR customer = $1) AND ($2 = '' OR state = $2) AND order_id < $3::uuid
			ORDER BY order_id DESC LIMIT $4`,
		q.Get("customer"), state, after, limit+1)
	if err != nil {
		return err
	}
	var page struct {
		Orders []View `json:"orders"`
		Next   string `json:"next,omitzero"` // pass it as after
	}
	if len(found) > limit {
		found = found[:limit]
		page.Next = found[limit-1].OrderID
	}
	page.Orders = make([]View, len(found))
	for i, o := range found {
		page.Orders[i] = view(o)
	}
	return web.Write(w, http.StatusOK, page)
}
