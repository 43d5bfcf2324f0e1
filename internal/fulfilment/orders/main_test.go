package orders_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

const within = 15 * time.Minute

func service(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
	return webtest.Must(orders.New(webtest.Config(database, log), within))
}

// env is the service with its tables.
type env struct{ *webtest.Service }

func start(t *testing.T) env { return env{webtest.Start(t, service)} }

func (w env) try(payloads ...events.Payload) ([]events.Event, error) {
	return webtest.React(w.Context(), w.Service, orders.Participant, payloads...)
}

func (w env) react(payloads ...events.Payload) []events.Event {
	w.Helper()
	published, err := w.try(payloads...)
	if err != nil {
		w.Fatal(err)
	}
	return published
}

// place places ada's order and returns it as it was answered.
func (w env) place(customer string) (v orders.View) {
	w.Helper()
	w.Decode(w.Want(w.Post("/orders", order(customer)), http.StatusCreated), &v)
	return v
}

func (w env) show(id string) (v orders.View) {
	w.Helper()
	w.Decode(w.Want(w.Call("GET", "/orders/"+id, ""), http.StatusOK), &v)
	return v
}

// published counts what was said about an order, of one type.
func (w env) published(id, eventType string) int64 {
	w.Helper()
	return w.Int(`SELECT count(*) FROM outbox WHERE aggregateid = $1 AND type = $2`, id, eventType)
}

const address = `{"name":"Ada Lovelace","street":"12 St James's Square","city":"London",` +
	`"postal_code":"SW1Y 4JH","country":"GB"}`

// body is an order of these lines with more members.
func body(customer, lines, more string) string {
	return fmt.Sprintf(`{"customer":%q,"currency":"EUR","lines":%s,"address":%s%s}`, customer, lines,
		address, more)
}

func order(customer string) string {
	return body(customer,
		`[{"sku":"teapot","quantity":1,"unit_price":2500},{"sku":"cup","quantity":4,"unit_price":700}]`,
		"")
}

// exec runs a statement.
func (w env) exec(query string, args ...any) {
	w.Helper()
	exec(w, w.DB, query, args...)
}

func exec(t testing.TB, db *sqlx.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
