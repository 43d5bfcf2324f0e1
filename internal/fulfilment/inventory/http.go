package inventory

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/web"
)

const (
	maxReceipt = 1_000_000_000 // articles in one receipt
	maxListed  = 1000          // articles in one page
)

type api struct{ service *quadrille.Service }

func routes(service *quadrille.Service, log zerolog.Logger) http.Handler {
	a := api{service}
	mux := http.NewServeMux()
	mux.Handle("POST /stock/{sku}/receipts", web.Handle(log, a.receive))
	mux.Handle("GET /stock", web.Handle(log, a.all))
	mux.Handle("GET /stock/{sku}", web.Handle(log, a.stock))
	mux.Handle("GET /reservations/{order}", web.Handle(log, a.reservation))
	mux.Handle("GET /reservations", web.Handle(log, web.ForAdmin(a.reservations)))
	return mux
}

func (a api) receive(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Quantity int64 `json:"quantity"`
	}
	body, err := web.ReadJSON(w, r, &in)
	if err != nil {
		return err
	}
	sku := r.PathValue("sku")
	var quantity error
	if in.Quantity < 1 || in.Quantity > maxReceipt {
		quantity = errors.New("quantity: must be between 1 and 1000000000")
	}
	if err := web.Check(fulfilment.CheckName("sku", sku), quantity); err != nil {
		return err
	}
	return web.Once(w, r, a.service, body, func(ctx context.Context, _ *sqlx.Tx) (web.Answer, error) {
		s, err := quadrille.Execute(ctx, a.service, Participant,
			Receive{SKU: sku, Quantity: in.Quantity})
		if err != nil {
			return web.Answer{}, err
		}
		stock, _ := s.Stock.Get(sku)
		return web.Answer{Status: http.StatusCreated, Location: "/stock/" + sku, Body: stock}, nil
	})
}

// all returns the stock in the order of the articles; after is the last one of the page before.
func (a api) all(w http.ResponseWriter, r *http.Request) error {
	limit, err := web.Page(r, maxListed, maxListed)
	if err != nil {
		return err
	}
	after := r.URL.Query().Get("after")
	if after != "" {
		if err := web.Check(fulfilment.CheckName("after", after)); err != nil {
			return err
		}
	}
	list, err := web.GetAll[Stock](r.Context(), a.service, "SELECT "+web.Columns[Stock]()+` FROM stock
		WHERE sku > $1 ORDER BY sku LIMIT $2`, after, limit+1)
	if err != nil {
		return err
	}
	var page struct {
		Stock []Stock `json:"stock"`
		Next  string  `json:"next,omitzero"` // pass it as after
	}
	if len(list) > limit {
		list = list[:limit]
		page.Next = list[limit-1].SKU
	}
	page.Stock = list
	return web.Write(w, http.StatusOK, page)
}

func (a api) stock(w http.ResponseWriter, r *http.Request) error {
	sku, err := web.Name(r, "sku")
	if err != nil {
		return err
	}
	stock, err := web.GetOne[Stock](r.Context(), a.service, "SELECT "+web.Columns[Stock]()+
		` FROM stock WHERE sku = $1`, sku)
	if err != nil {
		return err
	}
	if stock == nil {
		return web.NotFound("stock of", sku)
	}
	return web.Write(w, http.StatusOK, stock)
}

// reservation answers 404 for a tombstone: nothing was reserved.
func (a api) reservation(w http.ResponseWriter, r *http.Request) error {
	id, err := web.OrderID(r)
	if err != nil {
		return err
	}
	found, err := web.GetOne[Reservation](r.Context(), a.service, "SELECT "+web.Columns[Reservation]()+
		` FROM reservations WHERE order_id = $1 AND state <> 'void'`, id)
	if err != nil {
		return err
	}
	if found == nil {
		return web.NotFound("reservation for order", id)
	}
	return web.Write(w, http.StatusOK, view(*found))
}

// View is a reservation as the API shows it.
type View struct {
	OrderID   string           `json:"order_id"`
	State     ReservationState `json:"state"`
	Lines     []Line           `json:"lines"`
	Reason    string           `json:"reason,omitzero"`
	UpdatedAt time.Time        `json:"updated_at"`
}

func view(r Reservation) View {
	return View{r.OrderID, r.State, r.Lines.V, r.Reason, r.UpdatedAt}
}

// reservations returns them all, newest order first.
func (a api) reservations(w http.ResponseWriter, r *http.Request) error {
	found, next, err := web.ByOrder(r, a.service, "reservations",
		func(r Reservation) string { return r.OrderID }, Waiting, Reserved, Rejected, Released, Committed,
		Void)
	if err != nil {
		return err
	}
	all := make([]View, len(found))
	for i, r := range found {
		all[i] = view(r)
	}
	return web.Write(w, http.StatusOK, struct {
		Reservations []View `json:"reservations"`
		Next         string `json:"next,omitzero"` // pass it as after
	}{all, next})
}
