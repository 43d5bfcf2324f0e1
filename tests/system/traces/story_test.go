// Package traces_test follows one order through the four services on real servers, in the spans
// that a receiver of OTLP gets and in the log.
package traces_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/tests/system/env"
)

// The trace context of the client that places the order.
const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
	traceparent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// run is the four services and the HTTP servers of their whole APIs.
type run struct {
	*env.Env
	t   *testing.T
	api map[string]*httptest.Server
}

// start runs the services but payments, so that a test decides when an order is paid.
func start(t *testing.T, configure func(service string, c *quadrille.Config),
	wrap func(service string, h http.Handler) http.Handler) *run {
	t.Helper()
	r := &run{Env: env.Configured(t, configure), t: t, api: map[string]*httptest.Server{}}
	r.RunWithout("payments")
	r.StockUp()
	for name := range r.Services {
		r.api[name] = httptest.NewServer(wrap(name, r.API(name)))
		t.Cleanup(r.api[name].Close)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return r
}

// ask makes a request to the API of a service, in the trace of the client if there is a key.
func (r *run) ask(service, method, path, key, body string, into any) {
	r.t.Helper()
	if err := r.askIn(traceparent, service, method, path, key, body, into); err != nil {
		r.t.Fatal(err)
	}
}

func (r *run) askIn(trace, service, method, path, key, body string, into any) error {
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.api[service].URL+path,
		strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
		request.Header.Set("traceparent", trace)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(response.Body); err != nil || response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %s (%v)", method, path, response.Status, answer.String(), err)
	}
	return json.Unmarshal(answer.Bytes(), into)
}

// place places an order that a card pays.
func (r *run) place(key string) (id string) {
	r.t.Helper()
	var placed struct{ ID string }
	r.ask("orders", "POST", "/orders", key, order, &placed)
	return placed.ID
}

const order = `{"customer":"ada","currency":"EUR","card":"tok_visa",
	"lines":[{"sku":"teapot","quantity":1,"unit_price":100}],
	"address":{"name":"A","street":"1","city":"B","postal_code":"1","country":"DE"}}`

// open opens the database of a service until the test ends.
func (r *run) open(service string) *sqlx.DB {
	r.t.Helper()
	db, err := postgres.Open(r.Databases[service])
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = db.Close() })
	return db
}

// failOnce lets the first change of a table to a state fail with an error of this class.
func (r *run) failOnce(service, table, state, class string) {
	r.t.Helper()
	// A sequence keeps its value when the transaction is rolled back.
	_, err := r.open(service).ExecContext(r.t.Context(), fmt.Sprintf(`CREATE SEQUENCE tries;
		CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('tries') = 1 THEN RAISE '%[2]s must fail once' USING ERRCODE = '%[3]s'; END IF;
			RETURN NEW; END $$;
		CREATE TRIGGER fail_once BEFORE UPDATE ON %[1]s FOR EACH ROW WHEN (NEW.state = '%[2]s')
			EXECUTE FUNCTION fail_once()`, table, state, class))
	if err != nil {
		r.t.Fatal(err)
	}
}

// fulfil places an order whose reservation fails once and is retried, and whose shipment is parked
// and redriven. It returns its id and that of the parked event when it is confirmed.
func (r *run) fulfil() (id, parked string) {
	r.t.Helper()
	const failed, invalid = "P0001", "22023"
	r.failOnce("inventory", "reservations", "reserved", failed)
	r.failOnce("shipping", "shipments", "booking", invalid)
	id = r.place("traced")
	for service, table := range map[string]string{"inventory": "reservations",
		"shipping": "shipments"} {
		db := r.open(service)
		env.Await(r.t, service+" to know the order", func() (string, bool) {
			var n int
			err := db.Get(&n, `SELECT count(*) FROM `+table+` WHERE order_id = $1`, id)
			return fmt.Sprint(err), n == 1
		})
	}
	quadrilletest.Run(r.t, r.Services["payments"])
	env.Await(r.t, "the shipment to be parked", func() (string, bool) {
		var list struct{ Parked []struct{ ID string } }
		r.ask("shipping", "GET", "/admin/parked", "", "", &list)
		if len(list.Parked) == 1 {
			parked = list.Parked[0].ID
		}
		return fmt.Sprint(list), parked != ""
	})
	var repaired struct{ Done []string }
	r.ask("shipping", "POST", "/admin/parked/redrive", "",
		`{"ids":["`+parked+`"],"operator":"eve","reason":"repaired"}`, &repaired)
	if len(repaired.Done) != 1 {
		r.t.Fatalf("redriven: %v", repaired)
	}
	r.confirmed(id)
	return id, parked
}

func (r *run) confirmed(id string) {
	r.t.Helper()
	env.Await(r.t, "the order to be confirmed, and its stock committed", func() (string, bool) {
		o, err := r.Request("orders", "GET", "/orders/"+id, "", "", http.StatusOK)
		i, err2 := r.Request("inventory", "GET", "/reservations/"+id, "", "", http.StatusOK)
		return fmt.Sprint(o, err, i, err2), err == nil && err2 == nil && o["state"] == "confirmed" &&
			i["state"] == "committed"
	})
}
