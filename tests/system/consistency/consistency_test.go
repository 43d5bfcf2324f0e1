// Package consistency_test checks the statements of docs/consistency.md: in each test a server or a
// service is really away while clients make requests.
package consistency_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/tests/system/env"
)

// longDeadline is an order deadline that is not reached in these tests.
const longDeadline = 10 * time.Minute

// start runs all services but one, through proxies.
func start(t *testing.T, deadline time.Duration, absent string) *env.Env {
	t.Helper()
	d := env.ThroughProxies(t, deadline)
	d.StockUp()
	d.RunWithout(absent)
	return d
}

func order(t *testing.T, d *env.Env, key string) string {
	t.Helper()
	id, err := d.Order(key, "DE")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// state returns the state of an order in a service, "none" if the service does not know it.
func state(d *env.Env, service, path, id string) string {
	r, err := d.Request(service, "GET", path+id, "", "", http.StatusOK)
	if err != nil {
		return "none"
	}
	return r["state"].(string)
}

// agree waits until an order has these states in the four services.
func agree(t *testing.T, d *env.Env, id, orders, payments, inventory, shipping string) {
	t.Helper()
	want := fmt.Sprint(orders, " ", payments, " ", inventory, " ", shipping)
	env.Await(t, "the four services to agree on "+want, func() (string, bool) {
		got := fmt.Sprint(state(d, "orders", "/orders/", id), " ", state(d, "payments", "/payments/", id),
			" ",
			state(d, "inventory", "/reservations/", id), " ", state(d, "shipping", "/shipments/", id))
		return got, got == want
	})
}

func confirmed(t *testing.T, d *env.Env, id string) {
	t.Helper()
	agree(t, d, id, "confirmed", "captured", "committed", "scheduled")
}

// refusedAtOnce waits until a request is answered with 503. Every answer must come soon, and the
// 503 with Retry-After.
func refusedAtOnce(t *testing.T, d *env.Env, service, method, path, key, body string) {
	t.Helper()
	env.Await(t, service+" to notice that its database is away", func() (string, bool) {
		began := time.Now()
		answer, err := d.Request(service, method, path, key, body, http.StatusServiceUnavailable)
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("%s %s took %s", method, path, took)
		}
		if err == nil && answer["Retry-After"] == "" {
			t.Errorf("%s %s: no Retry-After", method, path)
		}
		return fmt.Sprint(err), err == nil
	})
}

// brokers takes the broker away from all services, or brings it back.
func brokers(d *env.Env, down bool) {
	for _, proxies := range d.Proxies {
		if down {
			proxies.Broker.Down()
		} else {
			proxies.Broker.Up()
		}
	}
}

// A client reads its own writes from every API, although no service publishes or consumes. The
// other services learn of them later.
func TestEachAPIShowsWhatWasWritten(t *testing.T) {
	t.Parallel()
	d := env.ThroughProxies(t, longDeadline) // no service runs
	d.StockUp()
	id := order(t, d, "k")
	for _, get := range []struct{ service, path, field, want string }{
		{"orders", "/orders/" + id, "state", "placed"},
		{"orders", "/orders?customer=ada", "orders", "[map["},
		{"payments", "/accounts/ada", "balance", "1e+09"},
		{"inventory", "/stock/teapot", "on_hand", "1e+06"},
	} {
		answer, err := d.Request(get.service, "GET", get.path, "", "", http.StatusOK)
		if got := fmt.Sprint(answer[get.field]); err != nil ||
			got[:min(len(got), len(get.want))] != get.want {
			t.Errorf("%s: %v, %v", get.path, got, err)
		}
	}
	if _, err := d.Request("orders", "POST", "/orders/"+id+"/cancellation", "", "",
		http.StatusOK); err != nil {
		t.Error(err)
	}
	if s := state(d, "orders", "/orders/", id); s != "cancelled" {
		t.Errorf("after its cancellation the order is %s", s)
	}
	for service, path := range map[string]string{"payments": "/payments/",
		"inventory": "/reservations/", "shipping": "/shipments/"} {
		if s := state(d, service, path, id); s != "none" {
			t.Errorf("%s knows the order before its event was published, as %s", service, s)
		}
	}
	// The list of accounts is a projection. It is empty until the service runs and fills it.
	if answer, err := d.Request("payments", "GET", "/accounts", "", "", http.StatusOK); err != nil ||
		fmt.Sprint(answer["accounts"]) != "[]" {
		t.Errorf("accounts %v, %v", answer, err)
	}
	d.Run()
	agree(t, d, id, "cancelled", "none", "none", "none")
	env.Await(t, "the list to contain the account", func() (string, bool) {
		answer, err := d.Request("payments", "GET", "/accounts", "", "", http.StatusOK)
		return fmt.Sprint(answer, err), err == nil && fmt.Sprint(answer["accounts"]) != "[]"
	})
}

// While the broker is away, every API accepts reads and writes, and orders stay placed. When it is
// back, all orders end.
func TestWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	d := start(t, longDeadline, "")
	confirmed(t, d, order(t, d, "before"))
	brokers(d, true)
	id, cancelled := order(t, d, "meanwhile"), order(t, d, "cancelled meanwhile")
	for _, request := range []struct {
		service, method, path, key, body string
		want                             int
	}{
		{"orders", "POST", "/orders/" + cancelled + "/cancellation", "", "", http.StatusOK},
		{"payments", "POST", "/accounts/ada/deposits", "meanwhile", `{"amount":5,"currency":"EUR"}`,
			http.StatusCreated},
		{"inventory", "POST", "/stock/teapot/receipts", "meanwhile", `{"quantity":5}`,
			http.StatusCreated},
		{"payments", "GET", "/accounts/ada", "", "", http.StatusOK},
	} {
		if _, err := d.Request(request.service, request.method, request.path, request.key, request.body,
			request.want); err != nil {
			t.Error(err)
		}
	}
	for name, service := range d.Services {
		if service.Ready(t.Context()) != nil {
			t.Errorf("%s is not ready", name)
		}
		env.Await(t, name+" to notice that the broker is away", func() (string, bool) {
			return "connected", !service.Connected()
		})
	}
	if s := state(d, "orders", "/orders/", id); s != "placed" {
		t.Errorf("the order is %s", s)
	}
	brokers(d, false)
	confirmed(t, d, id)
	// The payment may have been captured before payments handled the cancellation, but then it must be
	// refunded.
	env.Await(t, "the cancelled order to be undone", func() (string, bool) {
		payment, reservation, shipment := state(d, "payments", "/payments/", cancelled),
			state(d, "inventory", "/reservations/", cancelled), state(d, "shipping", "/shipments/",
				cancelled)
		return fmt.Sprint(payment, reservation, shipment), (payment == "refunded" || payment == "none") &&
			(reservation == "released" || reservation == "none") &&
			(shipment == "cancelled" || shipment == "none")
	})
}

// While one database is away, only its service answers 503, and at once. Orders are accepted and
// wait for it.
func TestWhileOneDatabaseIsAway(t *testing.T) {
	t.Parallel()
	d := start(t, longDeadline, "")
	d.Proxies["payments"].Database.Down()
	refusedAtOnce(t, d, "payments", "GET", "/accounts/ada", "", "")
	refusedAtOnce(t, d, "payments", "POST", "/accounts/ada/deposits", "meanwhile",
		`{"amount":5,"currency":"EUR"}`)
	id := order(t, d, "meanwhile")
	if _, err := d.Request("inventory", "GET", "/stock/teapot", "", "", http.StatusOK); err != nil {
		t.Error(err)
	}
	if s := state(d, "orders", "/orders/", id); s != "placed" {
		t.Errorf("the order is %s", s)
	}
	d.Proxies["payments"].Database.Up()
	confirmed(t, d, id)
}

// While the database of orders is away, no order is accepted. Accepted orders continue until they
// need orders again.
func TestWhileTheDatabaseOfOrdersIsAway(t *testing.T) {
	t.Parallel()
	d := env.ThroughProxies(t, longDeadline)
	d.StockUp()
	id := order(t, d, "before")
	d.Run()
	env.Await(t, "the order to be published", func() (string, bool) {
		return "not yet", d.Services["orders"].Stats().Relay.Published > 0
	})
	d.Proxies["orders"].Database.Down()
	refusedAtOnce(t, d, "orders", "POST", "/orders", "meanwhile",
		`{"customer":"ada","currency":"EUR","lines":[{"sku":"teapot","quantity":1,"unit_price":100}],
		"address":{"name":"A","street":"1","city":"B","postal_code":"1","country":"DE"}}`)
	env.Await(t, "the shipment to be scheduled", func() (string, bool) {
		s := state(d, "shipping", "/shipments/", id)
		return s, s == "scheduled"
	})
	d.Proxies["orders"].Database.Up()
	confirmed(t, d, id)
}

// While one service is away, the others continue. An order waits for the service, or is undone
// everywhere if its deadline comes first.
func TestWhileOneServiceIsAway(t *testing.T) {
	t.Parallel()
	t.Run("and comes back", func(t *testing.T) {
		t.Parallel()
		d := start(t, longDeadline, "inventory")
		id := order(t, d, "k")
		env.Await(t, "the payment to be captured", func() (string, bool) {
			s := state(d, "payments", "/payments/", id)
			return s, s == "captured"
		})
		if s := state(d, "orders", "/orders/", id); s != "placed" {
			t.Errorf("the order is %s", s)
		}
		quadrilletest.Run(t, d.Services["inventory"])
		confirmed(t, d, id)
	})
	t.Run("until the deadline", func(t *testing.T) {
		t.Parallel()
		d := start(t, 2*time.Second, "inventory")
		id := order(t, d, "k")
		agree(t, d, id, "cancelled", "refunded", "none", "none")
		quadrilletest.Run(t, d.Services["inventory"]) // it handles both events at once
		second, err := d.Request("orders", "GET", "/orders/"+id, "", "", http.StatusOK)
		if err != nil || second["reason"] != "not confirmed in time" {
			t.Errorf("order %v, %v", second, err)
		}
		env.Await(t, "nothing to stay reserved", func() (string, bool) {
			stock, err := d.Request("inventory", "GET", "/stock/teapot", "", "", http.StatusOK)
			handled := d.Services["inventory"].Stats().Consumer.Handled
			return fmt.Sprint(stock, err), err == nil && handled >= 2 && stock["reserved"] == 0.0 &&
				stock["on_hand"] == 1e6
		})
	})
}

// While the provider is away, orders by card wait, and orders from an account are confirmed.
func TestWhileTheProviderIsAway(t *testing.T) {
	t.Parallel()
	d := start(t, longDeadline, "")
	d.PeerProxies["provider"].Down()
	card, err := d.OrderBy("card", "teapot", "DE", "tok_visa")
	if err != nil {
		t.Fatal(err)
	}
	confirmed(t, d, order(t, d, "account"))
	env.Await(t, "the charge of the card to be requested", func() (string, bool) {
		s := state(d, "payments", "/payments/", card)
		return s, s == "charging"
	})
	if s := state(d, "orders", "/orders/", card); s != "placed" {
		t.Errorf("the order is %s", s)
	}
	d.PeerProxies["provider"].Up()
	confirmed(t, d, card)
}
