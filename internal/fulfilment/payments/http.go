package payments

import (
	"net/http"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/web"
)

type api struct{ service *quadrille.Service }

func routes(service *quadrille.Service, log zerolog.Logger) http.Handler {
	a := api{service}
	mux := http.NewServeMux()
	mux.Handle("PUT /accounts/{customer}", web.Handle(log, readable(a.open)))
	mux.Handle("GET /accounts/{customer}", web.Handle(log, readable(a.account)))
	mux.Handle("GET /accounts", web.Handle(log, readable(web.ForAdmin(a.accounts))))
	mux.Handle("POST /accounts/{customer}/deposits", web.Handle(log, readable(a.deposit)))
	mux.Handle("POST /accounts/{customer}/closure", web.Handle(log, readable(a.close)))
	mux.Handle("GET /accounts/{customer}/statement", web.Handle(log, readable(a.statement)))
	mux.Handle("GET /accounts/{customer}/history", web.Handle(log, readable(a.history)))
	mux.Handle("POST /accounts/{customer}/verification",
		web.Handle(log, readable(web.ForAdmin(a.verify))))
	mux.Handle("GET /verifications", web.Handle(log, readable(web.ForAdmin(a.verifyPage))))
	mux.Handle("GET /payments/{order}", web.Handle(log, readable(a.payment)))
	mux.Handle("GET /payments", web.Handle(log, readable(web.ForAdmin(a.list))))
	mux.Handle("POST /payments/{order}/refund", web.Handle(log, readable(web.ForAdmin(a.refundAgain))))
	return mux
}

// payment answers 404 for a tombstone: nothing was ever paid.
func (a api) payment(w http.ResponseWriter, r *http.Request) error {
	id, err := web.OrderID(r)
	if err != nil {
		return err
	}
	payment, err := web.GetOne[Payment](r.Context(), a.service, "SELECT "+web.Columns[Payment]()+
		` FROM payments WHERE order_id = $1 AND state <> 'void'`, id)
	if err != nil {
		return err
	}
	if payment == nil {
		return web.NotFound("payment for order", id)
	}
	return web.Write(w, http.StatusOK, payment)
}

// list returns the payments, newest order first. By their state it lists those that need a person,
// or that wait for the provider.
func (a api) list(w http.ResponseWriter, r *http.Request) error {
	var page struct {
		Payments []Payment `json:"payments"`
		Next     string    `json:"next,omitzero"` // pass it as after
	}
	var err error
	page.Payments, page.Next, err = web.ByOrder(r, a.service, "payments",
		func(p Payment) string { return p.OrderID }, Captured, Declined, Refunded, Void, Charging,
		Unwanted,
		Refunding, RefundRefused)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, page)
}

// refundAgain is for a person who has repaired what the provider refused a refund for.
func (a api) refundAgain(w http.ResponseWriter, r *http.Request) error {
	id, err := web.OrderID(r)
	if err != nil {
		return err
	}
	s, err := quadrille.Execute(r.Context(), a.service, Participant, RefundAgain{OrderID: id})
	if err != nil {
		return err
	}
	payment, _ := s.Payments.Get(id)
	return web.Write(w, http.StatusOK, payment)
}
