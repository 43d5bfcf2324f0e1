package payments_test

import (
	"flag"
	"net/http"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "20") // each is a history of some hundred events in a real database
	webtest.Main(m)
}

func service(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
	return webtest.Must(payments.New(webtest.Config(database, log), nil))
}

// env is the service with its tables.
type env struct{ *webtest.Service }

func start(t *testing.T) env { return env{webtest.Start(t, service)} }

// rich opens the account of ada with so much in it.
func (w env) rich(amount int64) {
	w.Helper()
	w.Want(w.Call("PUT", "/accounts/ada", euro), http.StatusOK)
	w.Want(w.Post("/accounts/ada/deposits", money(amount)), http.StatusCreated)
}

// try handles events in one transaction.
func (w env) try(payloads ...events.Payload) ([]events.Event, error) {
	return webtest.React(w.Context(), w.Service, payments.Participant, payloads...)
}

func (w env) react(payloads ...events.Payload) []events.Event {
	w.Helper()
	published, err := w.try(payloads...)
	if err != nil {
		w.Fatal(err)
	}
	return published
}

func (w env) payment(order string) (p payments.Payment) {
	w.Helper()
	if err := w.DB.GetContext(w.Context(), &p, `SELECT * FROM payments WHERE order_id = $1`,
		order); err != nil {
		w.Fatal(err)
	}
	return p
}

// balanceSQL is what is in ada's account by its events.
const balanceSQL = `SELECT coalesce(sum(CASE WHEN type = 'funds.withdrawn' THEN -1
	ELSE 1 END * (payload ->> 'amount')::bigint), 0)
	FROM eventstore WHERE stream = 'account/ada'`

func (w env) balance() int64 {
	w.Helper()
	return w.Int(balanceSQL)
}

// placed is ada's order of one piece.
func placed(order string, price int64) fulfilment.OrderPlaced {
	return fulfilment.OrderPlaced{
		OrderID: order, Customer: "ada", Currency: "EUR",
		Lines:   []fulfilment.Line{{SKU: "teapot", Quantity: 1, UnitPrice: price}},
		Address: fulfilment.Address{Name: "Ada", Street: "1", City: "X", PostalCode: "1", Country: "DE"},
	}
}

func cancelled(order string) fulfilment.OrderCancelled {
	return fulfilment.OrderCancelled{OrderID: order, Reason: fulfilment.ReasonCustomer}
}

// compensations are all that ask for a refund.
func compensations(order string) []events.Payload {
	return []events.Payload{
		fulfilment.StockRejected{OrderID: order, Reason: fulfilment.ReasonOutOfStock},
		fulfilment.ShipmentFailed{OrderID: order, Reason: fulfilment.ReasonNotServed},
		cancelled(order),
	}
}
