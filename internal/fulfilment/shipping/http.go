package shipping

import (
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/web"
)

type api struct {
	service     *quadrille.Service
	participant consumer.Participant[State]
}

func routes(service *quadrille.Service, participant consumer.Participant[State],
	log zerolog.Logger) http.Handler {
	a := api{service, participant}
	mux := http.NewServeMux()
	mux.Handle("GET /shipments/{order}", web.Handle(log, a.shipment))
	mux.Handle("GET /shipments", web.Handle(log, web.ForAdmin(a.list)))
	mux.Handle("POST /shipments/{order}/recall", web.Handle(log, web.ForAdmin(a.recallAgain)))
	return mux
}

// shipment answers 404 while there is nothing to send yet, and for a tombstone: nothing ever was.
func (a api) shipment(w http.ResponseWriter, r *http.Request) error {
	id, err := web.OrderID(r)
	if err != nil {
		return err
	}
	found, err := web.GetOne[Shipment](r.Context(), a.service, "SELECT "+web.Columns[Shipment]()+
		` FROM shipments WHERE order_id = $1 AND state NOT IN ('waiting', 'void')`, id)
	if err != nil {
		return err
	}
	if found == nil {
		return web.NotFound("shipment for order", id)
	}
	return web.Write(w, http.StatusOK, view(*found))
}

// View is a shipment as the API shows it.
type View struct {
	OrderID   string             `json:"order_id"`
	State     ShipmentState      `json:"state"`
	Address   fulfilment.Address `json:"address"`
	Reason    string             `json:"reason,omitzero"`
	UpdatedAt time.Time          `json:"updated_at"`
}

func view(s Shipment) View { return View{s.OrderID, s.State, s.Address.V, s.Reason, s.UpdatedAt} }

// list returns the shipments, newest order first. By their state it lists those that need a person,
// or that wait for the carrier.
func (a api) list(w http.ResponseWriter, r *http.Request) error {
	found, next, err := web.ByOrder(r, a.service, "shipments",
		func(s Shipment) string { return s.OrderID }, Waiting, Scheduled, Failed, Cancelled, Void,
		Booking,
		Unwanted, Recalling, RecallRefused)
	if err != nil {
		return err
	}
	all := make([]View, len(found))
	for i, s := range found {
		all[i] = view(s)
	}
	return web.Write(w, http.StatusOK, struct {
		Shipments []View `json:"shipments"`
		Next      string `json:"next,omitzero"` // pass it as after
	}{all, next})
}

// recallAgain is for a person who has repaired what the carrier refused a recall for.
func (a api) recallAgain(w http.ResponseWriter, r *http.Request) error {
	id, err := web.OrderID(r)
	if err != nil {
		return err
	}
	s, err := quadrille.Execute(r.Context(), a.service, a.participant, RecallAgain{OrderID: id})
	if err != nil {
		return err
	}
	shipment, _ := s.Shipments.Get(id)
	return web.Write(w, http.StatusOK, view(shipment))
}
