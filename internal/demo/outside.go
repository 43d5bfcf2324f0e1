package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
)

// outageOrders is the number of card orders placed while the provider is away. It is more than the
// breakers of two replicas need to open.
const outageOrders = 14

// maxCloseOrders bounds the orders that are placed to close a breaker.
const maxCloseOrders = 10

const visa = "tok_visa"

// simulatorClient is the URL of the simulators, which are the outside world of the demo.
type simulatorClient string

// call makes a request to the simulators.
func (c simulatorClient) call(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("request to the simulators: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, string(c)+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("request to the simulators: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("request to the simulators: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("request to the simulators: %s %s: %s", method, path, response.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(out)
}

// setRule sets a fault rule of the simulators.
func (c simulatorClient) setRule(ctx context.Context, rule simulator.Rule) error {
	return c.call(ctx, http.MethodPut, "/rules", rule, nil)
}

// clearRules removes all fault rules of the simulators.
func (c simulatorClient) clearRules(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, "/rules", nil, nil)
}

// cards places an order for every answer of the outside world. It waits for each order, because a
// fault rule is valid for all calls.
func (d *player) cards(ctx context.Context) error {
	for _, c := range []struct {
		name   string
		sku    string
		refuse string
		expect Ending
	}{
		{"a card pays", plenty, "", confirmed},
		{"the card is declined", plenty, simulator.Charges, declined},
		{"a card pays, and the carrier refuses the booking", plenty, simulator.Bookings, notShipped},
		{"a card pays, there is no stock, and the provider refuses the refund: a person is needed",
			scarce, simulator.Refunds, refundRefused},
	} {
		if c.refuse != "" {
			refuse := simulator.Rule{Call: c.refuse, Do: simulator.Refuse}
			if err := d.simulators.setRule(ctx, refuse); err != nil {
				return err
			}
		}
		body := newBody(rich, c.sku, "GB")
		body.Card = visa
		if _, err := d.place(ctx, c.name, body, c.expect); err != nil {
			return err
		}
		if _, _, err := d.await(ctx, d.orders[len(d.orders)-1]); err != nil {
			return err
		}
		if err := d.simulators.clearRules(ctx); err != nil {
			return err
		}
	}
	return nil
}

// outage makes the provider fail while orders are placed, until a breaker opens, and then lets it
// work again.
func (d *player) outage(ctx context.Context) error {
	fail := simulator.Rule{Call: simulator.Charges, Do: simulator.Fail}
	if err := d.simulators.setRule(ctx, fail); err != nil {
		return err
	}
	for i := range outageOrders {
		body := newBody(rich, plenty, "GB")
		body.Card = visa
		if _, err := d.place(ctx, fmt.Sprintf("placed while the provider is away (%d)", i+1), body,
			confirmed); err != nil {
			return err
		}
	}
	ok, err := poll(ctx, func() (bool, error) {
		state, err := d.breaker(ctx)
		return state.State != "closed", err
	})
	if err != nil || !ok {
		return fmt.Errorf("no breaker opened while the provider failed (%w)", err)
	}
	if err := d.simulators.clearRules(ctx); err != nil {
		return err
	}
	for _, o := range d.orders[len(d.orders)-outageOrders:] {
		if _, _, err := d.await(ctx, o); err != nil {
			return err
		}
	}
	return d.closeBreaker(ctx)
}

// closeBreaker places orders until the breaker of the first replica is closed. A breaker closes at
// its next successful call, but the other replica may make that call instead.
func (d *player) closeBreaker(ctx context.Context) (err error) {
	for range maxCloseOrders {
		if d.closed, err = d.breaker(ctx); err != nil || d.closed.State == "closed" {
			return err
		}
		body := newBody(rich, plenty, "GB")
		body.Card = visa
		if _, err := d.place(ctx, "placed when the provider is back", body, confirmed); err != nil {
			return err
		}
		if _, _, err := d.await(ctx, d.orders[len(d.orders)-1]); err != nil {
			return err
		}
	}
	return nil
}

// breaker returns the breaker of the first replica of payments.
func (d *player) breaker(ctx context.Context) (admin.Breaker, error) {
	list, err := d.Client().Service("payments").Breakers(ctx)
	if err != nil {
		return admin.Breaker{}, err
	}
	if len(list) == 0 {
		return admin.Breaker{}, fmt.Errorf("payments reports no breaker")
	}
	return list[0], nil
}

// checkJournal compares each order with the journal of the simulators: its charges, refunds,
// bookings and recalls, each at most once.
func (d *player) checkJournal(ctx context.Context, outcome []Outcome) (violations []string,
	err error) {
	var journal []simulator.Entry
	if err := d.simulators.call(ctx, http.MethodGet, "/journal", nil, &journal); err != nil {
		return nil, err
	}
	done := map[string]map[string]int{}
	for _, e := range journal {
		if done[e.OrderID] == nil {
			done[e.OrderID] = map[string]int{}
		}
		if e.Done {
			done[e.OrderID][e.Call]++
		}
	}
	for _, o := range outcome {
		charges, refunds := done[o.OrderID][simulator.Charges], done[o.OrderID][simulator.Refunds]
		charged := o.Got.Payment == string(payments.RefundRefused) ||
			o.Got.Payment == string(payments.Captured) && o.Card
		if charges > 1 || charges-refunds != map[bool]int{true: 1}[charged] {
			violations = append(violations, fmt.Sprintf("provider: order %s was charged %d times and "+
				"refunded %d times, and its payment is %s",
				o.OrderID, charges, refunds, o.Got.Payment))
		}
		bookings, recalls := done[o.OrderID][simulator.Bookings], done[o.OrderID][simulator.Recalls]
		booked := o.Got.Shipment == string(shipping.Scheduled) ||
			o.Got.Shipment == string(shipping.RecallRefused)
		if bookings > 1 || bookings-recalls != map[bool]int{true: 1}[booked] {
			violations = append(violations, fmt.Sprintf("carrier: order %s was booked %d times and "+
				"recalled %d times, and its shipment is %s",
				o.OrderID, bookings, recalls, o.Got.Shipment))
		}
	}
	if d.closed.State != "closed" || d.closed.Opened == 0 {
		violations = append(violations,
			fmt.Sprintf("the breaker of the provider did not open and close again: %+v", d.closed))
	}
	return violations, nil
}

// outageSummary describes the outage.
func (d *player) outageSummary() string {
	return fmt.Sprintf(
		"the payment provider was away: its circuit breaker in one replica opened %d times, kept %d "+
			"calls back, and closed at %s; no order was lost",
		d.closed.Opened, d.closed.Refused, d.closed.Since.UTC().Format(time.RFC3339))
}
