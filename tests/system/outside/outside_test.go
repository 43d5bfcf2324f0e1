// Package outside_test runs orders on real servers with a payment provider and a carrier that fail.
// Their journal shows which charges and bookings really happened.
package outside_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
	"github.com/quadrille-go/quadrille/tests/system/env"
)

const visa = "tok_visa"

// ends waits until an order has these states in three services.
func ends(t *testing.T, d *env.Env, id, order, payment, shipment string) {
	t.Helper()
	state := func(service, path string) string {
		r, err := d.Request(service, "GET", path+id, "", "", http.StatusOK)
		if err != nil {
			return "none"
		}
		return r["state"].(string)
	}
	want := order + ", " + payment + ", " + shipment
	env.Await(t, "order, payment and shipment to be "+want, func() (string, bool) {
		got := state("orders", "/orders/") + ", " + state("payments", "/payments/") + ", " +
			state("shipping", "/shipments/")
		return got, got == want
	})
}

func place(t *testing.T, d *env.Env, key, sku string) string {
	t.Helper()
	id, err := d.OrderBy(key, sku, "DE", visa)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// done returns how often a call was made for an order, how often it took effect, and its number of
// idempotency keys.
func done(d *env.Env, id, call string) (effects, calls, keys int) {
	seen := map[string]bool{}
	for _, e := range d.Outside.Journal(id, call) {
		calls++
		seen[e.Key] = true
		if e.Done {
			effects++
		}
	}
	return effects, calls, len(seen)
}

// SAG-13: a refund that the provider refuses waits for a person in a state of its own. Other orders
// continue, and after the cause is repaired one more request is enough.
func TestRefusedRefundWaitsAndBlocksNothing(t *testing.T) {
	t.Parallel()
	d := env.Start(t)
	d.StockUp()
	d.Outside.SetRule(simulator.Rule{Call: simulator.Refunds, Do: simulator.Refuse})
	bad := place(t, d, "bad", "samovar") // there are none, so the charge must be refunded
	ends(t, d, bad, "cancelled", "refund_refused", "none")
	// There is more than one call if an answer came after the time-out.
	_, before, _ := done(d, bad, simulator.Refunds)
	good := place(t, d, "good", "teapot")
	ends(t, d, good, "confirmed", "captured", "scheduled")
	list, err := d.Request("payments", "GET", "/payments?state=refund_refused", "", "", http.StatusOK)
	if err != nil || len(list["payments"].([]any)) != 1 {
		t.Errorf("the list of refused refunds is %v (%v), want one", list, err)
	}
	if effects, calls, keys := done(d, bad, simulator.Refunds); effects != 0 || calls != before ||
		keys != 1 {
		t.Errorf(
			"%d refunds in %d calls, %d until the refusal, under %d keys: it must not be retried",
			effects, calls, before, keys)
	}
	if _, err := d.Request("payments", "POST", "/payments/"+good+"/refund", "", "",
		http.StatusConflict); err != nil {
		t.Error(err)
	}
	d.Outside.SetRule(simulator.Rule{Call: simulator.Refunds, Do: simulator.OK})
	if _, err := d.Request("payments", "POST", "/payments/"+bad+"/refund", "", "",
		http.StatusOK); err != nil {
		t.Fatal(err)
	}
	ends(t, d, bad, "cancelled", "refunded", "none")
	if effects, _, keys := done(d, bad, simulator.Refunds); effects != 1 || keys != 2 {
		t.Errorf("%d refunds under %d keys", effects, keys)
	}
}

// A charge that succeeds after the order was cancelled is refunded once, and a booking that
// succeeds then is recalled once.
func TestLateSuccessIsUndoneOnce(t *testing.T) {
	t.Parallel()
	d := env.Start(t)
	d.StockUp()
	for _, c := range []struct{ call, undo, service, path, waits string }{
		{simulator.Charges, simulator.Refunds, "payments", "/payments/", "charging"},
		{simulator.Bookings, simulator.Recalls, "shipping", "/shipments/", "booking"},
	} {
		// The call takes effect, and its answer comes after the time-out.
		d.Outside.SetRule(simulator.Rule{Call: c.call, Do: simulator.Late})
		id := place(t, d, c.call, "teapot")
		env.Await(t, "the call to take effect and its retries to time out", func() (string, bool) {
			effects, calls, _ := done(d, id, c.call)
			now, err := d.Request(c.service, "GET", c.path+id, "", "", http.StatusOK)
			return fmt.Sprint(effects, calls, now, err), effects >= 1 && calls >= 3 && err == nil &&
				now["state"] == c.waits
		})
		if _, err := d.Request("orders", "POST", "/orders/"+id+"/cancellation", "", "",
			http.StatusOK); err != nil {
			t.Fatal(err)
		}
		d.Outside.SetRule(simulator.Rule{Call: c.call, Do: simulator.Twice})
		shipment := "none"
		if c.call == simulator.Bookings {
			shipment = "cancelled"
		}
		ends(t, d, id, "cancelled", "refunded", shipment)
		for _, call := range []string{c.call, c.undo} {
			if effects, calls, keys := done(d, id, call); effects != 1 || keys != 1 {
				t.Errorf("%s: done %d times in %d calls under %d keys", call, effects, calls, keys)
			}
		}
	}
}

// RET-16: while the provider is away, only the calls that the breaker permits are made and nothing
// is parked. When it is back, each waiting charge is made once.
func TestProviderOutageLosesNothing(t *testing.T) {
	t.Parallel()
	d := env.Start(t)
	d.StockUp()
	d.Outside.SetRule(simulator.Rule{Call: simulator.Charges, Do: simulator.Fail})
	const orders = 60
	ids := make([]string, orders)
	for i := range ids {
		ids[i] = place(t, d, fmt.Sprint("order-", i), "teapot")
	}
	breaker := d.Peers["provider"].Breaker
	env.Await(t, "the breaker to have opened several times", func() (string, bool) {
		return fmt.Sprintf("%+v", breaker.Stats()), breaker.Stats().Opened >= 4
	})
	calls := len(d.Outside.Journal("", simulator.Charges))
	// Five failures open the breaker while at most sixteen other calls are in progress; each later
	// opening has one call.
	if opened := int(breaker.Stats().Opened); calls > 5+16+opened {
		t.Errorf("%d calls to a provider that is away, although the breaker opened %d times", calls,
			opened)
	}
	d.Outside.SetRule(simulator.Rule{Call: simulator.Charges, Do: simulator.OK})
	for _, id := range ids {
		ends(t, d, id, "confirmed", "captured", "scheduled")
		if effects, _, keys := done(d, id, simulator.Charges); effects != 1 || keys != 1 {
			t.Errorf("order %s was charged %d times under %d keys", id, effects, keys)
		}
	}
	if s := breaker.Stats(); s.State != "closed" || s.Refused == 0 {
		t.Errorf("at the end the breaker is %+v, want it closed after refused calls", s)
	}
	if s := d.Services["payments"].Stats().Consumer; s.Parked != 0 {
		t.Errorf("%d events were parked, want none", s.Parked)
	}
}

// A provider that hangs delays orders by card, and no other orders.
func TestHangingProviderDelaysOnlyCards(t *testing.T) {
	t.Parallel()
	d := env.Start(t)
	d.StockUp()
	d.Outside.SetRule(simulator.Rule{Call: simulator.Charges, Do: simulator.Hang})
	var cards []string
	for i := range 20 {
		cards = append(cards, place(t, d, fmt.Sprint("card-", i), "teapot"))
	}
	began := time.Now()
	for i := range 20 {
		id, err := d.Order(fmt.Sprint("account-", i), "DE")
		if err != nil {
			t.Fatal(err)
		}
		ends(t, d, id, "confirmed", "captured", "scheduled")
	}
	t.Logf("20 orders in %s while the provider hangs", time.Since(began))
	if effects, _, _ := done(d, "", simulator.Charges); effects != 0 {
		t.Errorf("%d charges while the provider hangs", effects)
	}
	d.Outside.SetRule(simulator.Rule{Call: simulator.Charges, Do: simulator.OK})
	for _, id := range cards {
		ends(t, d, id, "confirmed", "captured", "scheduled")
	}
}
