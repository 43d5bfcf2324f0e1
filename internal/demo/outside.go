package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/payments"
	"github.com/quadrille-go/quadrille/internal/shipping"
	"github.com/quadrille-go/quadrille/internal/simulator"
)

// outageOrders is how many card orders are placed while the provider is away: more than open a
// breaker in each of two replicas.
const outageOrders = 14

// maxRepair bounds the orders that close a breaker.
const maxRepair = 10

const visa = "tok_visa"

// simulators asks the outside world itself.
func (d *player) simulators(ctx context.Context, method, path string, body, out any) error {
	base, err := d.Setting("QUADRILLE_SIMULATORS_URL")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask the simulators: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("ask the simulators: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the simulators: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the simulators: %s %s: %s", method, path, response.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(out)
}

func (d *player) print(ctx context.Context, rule simulator.Rule) error {
	return d.simulators(ctx, http.MethodPut, "/rules", rule, nil)
}

func (d *player) discardParked(ctx context.Context) error {
	return d.simulators(ctx, http.MethodDelete, "/rules", nil, nil)
}

// cards takes orders through everything that the outside world can say. A rule is for the one order
// that is under way.
func (d *player) cards(ctx context.Context) error {
	for _, scene := range []struct {
		name   string
		sku    string
		refuse string
		expect Ending
	}{
		{"a card pays", plenty, "", confirmed},
		{"the card is declined", plenty, simulator.Charges, declined},
		{"a card pays, and the carrier has no room", plenty, simulator.Bookings, notShipped},
		{"a card pays what is out of stock, and the provider refuses the refund: a person is needed",
			scarce, simulator.Refunds, refundRefused},
	} {
		if scene.refuse != "" {
			if err := d.print(ctx, simulator.Rule{Call: scene.refuse, Do: simulator.Refuse}); err != nil {
				return err
			}
		}
		body := newBody(rich, scene.sku, "GB")
		body.Card = visa
		if _, err := d.place(ctx, scene.name, body, scene.expect); err != nil {
			return err
		}
		if _, _, err := d.await(ctx, d.scenes[len(d.scenes)-1]); err != nil {
			return err
		}
		if err := d.discardParked(ctx); err != nil {
			return err
		}
	}
	return nil
}

// outage takes the provider away while orders come in, until a breaker has opened, and gives it
// back.
func (d *player) outage(ctx context.Context) error {
	if err := d.print(ctx, simulator.Rule{Call: simulator.Charges, Do: simulator.Fail}); err != nil {
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
		return fmt.Errorf("no breaker opened while the provider was away (%w)", err)
	}
	if err := d.discardParked(ctx); err != nil {
		return err
	}
	for _, a := range d.scenes[len(d.scenes)-outageOrders:] {
		if _, _, err := d.await(ctx, a); err != nil {
			return err
		}
	}
	return d.repair(ctx)
}

// repair sees the breaker of the first replica closed. It closes at its next call, which the other
// replica may have made instead, so there are more orders until it has had one.
func (d *player) repair(ctx context.Context) (err error) {
	for range maxRepair {
		if d.repaired, err = d.breaker(ctx); err != nil || d.repaired.State == "closed" {
			return err
		}
		body := newBody(rich, plenty, "GB")
		body.Card = visa
		if _, err := d.place(ctx, "placed when the provider is back", body, confirmed); err != nil {
			return err
		}
		if _, _, err := d.await(ctx, d.scenes[len(d.scenes)-1]); err != nil {
			return err
		}
	}
	return nil
}

// breaker is that of payments' first replica.
func (d *player) breaker(ctx context.Context) (cli.Breaker, error) {
	var list []cli.Breaker
	if err := d.Call(ctx, "payments", "GET", "/admin/breakers", nil, nil, &list); err != nil {
		return cli.Breaker{}, err
	}
	if len(list) == 0 {
		return cli.Breaker{}, fmt.Errorf("payments has no breaker")
	}
	return list[0], nil
}

// witnessed compares each card order with the journal of the provider: what was taken from it and
// given back, each at most once.
func (d *player) witnessed(ctx context.Context, outcome []Outcome) (violations []string,
	err error) {
	var journal []simulator.Entry
	if err := d.simulators(ctx, http.MethodGet, "/journal", nil, &journal); err != nil {
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
		kept := o.Got.Payment == payments.RefundRefused || o.Got.Payment == payments.Captured && o.Card
		if charges > 1 || charges-refunds != map[bool]int{true: 1}[kept] {
			violations = append(violations, fmt.Sprintf("provider: order %s was charged %d times and "+
				"refunded %d times, and its payment is %s",
				o.OrderID, charges, refunds, o.Got.Payment))
		}
		bookings, recalls := done[o.OrderID][simulator.Bookings], done[o.OrderID][simulator.Recalls]
		goes := o.Got.Shipment == shipping.Scheduled || o.Got.Shipment == shipping.RecallRefused
		if bookings > 1 || bookings-recalls != map[bool]int{true: 1}[goes] {
			violations = append(violations, fmt.Sprintf("carrier: order %s was booked %d times and "+
				"recalled %d times, and its shipment is %s",
				o.OrderID, bookings, recalls, o.Got.Shipment))
		}
	}
	if d.repaired.State != "closed" || d.repaired.Opened == 0 {
		violations = append(violations,
			fmt.Sprintf("the breaker of the provider should have opened and closed again: %+v", d.repaired))
	}
	return violations, nil
}

// sinceOpened tells how the outage went.
func (d *player) sinceOpened() string {
	return fmt.Sprintf("the provider was away: its breaker opened %d times in one replica, %d calls "+
		"were not made, it closed at %s, and nothing was lost",
		d.repaired.Opened, d.repaired.Refused, d.repaired.Since.Format(time.TimeOnly))
}
