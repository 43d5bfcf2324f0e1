package inventory_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

func service(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
	return webtest.Must(inventory.New(webtest.Config(database, log)))
}

// env is the service with its tables.
type env struct{ *webtest.Service }

func start(t *testing.T) env { return env{webtest.Start(t, service)} }

// receive takes goods in.
func (w env) receive(sku string, quantity int64) {
	w.Helper()
	w.Want(w.Post("/stock/"+sku+"/receipts", fmt.Sprintf(`{"quantity":%d}`, quantity)),
		http.StatusCreated)
}

// try handles events in one transaction.
func (w env) try(payloads ...events.Payload) ([]events.Event, error) {
	return webtest.React(w.Context(), w.Service, inventory.Participant, payloads...)
}

func (w env) react(payloads ...events.Payload) []events.Event {
	w.Helper()
	published, err := w.try(payloads...)
	if err != nil {
		w.Fatal(err)
	}
	return published
}

func (w env) stock(sku string) (s inventory.Stock) {
	w.Helper()
	if err := w.DB.GetContext(w.Context(), &s, `SELECT * FROM stock WHERE sku = $1`, sku); err != nil {
		w.Fatal(err)
	}
	return s
}

func (w env) state(order string) (state inventory.ReservationState) {
	w.Helper()
	if err := w.DB.GetContext(w.Context(), &state,
		`SELECT state FROM reservations WHERE order_id = $1`, order); err != nil {
		w.Fatal(err)
	}
	return state
}

// line is so much of an article.
func line(sku string, quantity int64) fulfilment.Line {
	return fulfilment.Line{SKU: sku, Quantity: quantity, UnitPrice: 100}
}

func placed(order string, lines ...fulfilment.Line) fulfilment.OrderPlaced {
	return fulfilment.OrderPlaced{
		OrderID: order, Customer: "ada", Currency: "EUR", Lines: lines,
		Address: fulfilment.Address{Name: "Ada", Street: "1", City: "X", PostalCode: "1", Country: "DE"},
	}
}

func captured(order string) fulfilment.PaymentCaptured {
	return fulfilment.PaymentCaptured{OrderID: order, Customer: "ada", Amount: 100, Currency: "EUR"}
}

// compensations are all that release.
func compensations(order string) []events.Payload {
	return []events.Payload{
		fulfilment.ShipmentFailed{OrderID: order, Reason: fulfilment.ReasonNotServed},
		fulfilment.OrderCancelled{OrderID: order, Reason: fulfilment.ReasonCustomer},
	}
}
