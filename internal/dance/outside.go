package dance

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

// outageOrders is how many card orders are placed while the provider is away: more than open a breaker
// in each of two replicas.
const outageOrders = 14

// maxMending bounds the orders that close a breaker.
const maxMending = 10

const visa = "tok_visa"

// simulators asks the outside world itself.
func (d *director) simulators(ctx context.Context, method, path string, body, out any) error {
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

func (d *director) tell(ctx context.Context, rule simulator.Rule) error {
	return d.simulators(ctx, http.MethodPut, "/rules", rule, nil)
}

func (d *director) forgive(ctx context.Context) error {
	return d.simulators(ctx, http.MethodDelete, "/rules", nil, nil)
}

// cards takes orders through everything that the outside world can say. A rule is for the one order
// that is under way.
func (d *director) cards(ctx context.Context) error {
	for _, scene := range []struct {
		name   string
		sku    string
		refuse string
		expect Ending
	}{
		{"a card pays", plenty, "", confirmed},
		{"the card is declined", plenty, simulator.Charges, declined},
		{"a card pays, and the carrier has no room", plenty, simulator.Bookings, notShipped},
		{"a card pays what is out of stock, and the provider refuses the refund: a person is needed", scarce, simulator.Refunds, refundRefused},
	} {
		if scene.refuse != "" {
			if err := d.tell(ctx, simulator.Rule{Call: scene.refuse, Do: simulator.Refuse}); err != nil {
				return err
			}
		}
		body := newBody(rich, scene.sku, "GB")
		body.Card = visa
		if _, err := d.place(ctx, scene.name, body, scene.expect); err != nil {
			return err
		}
		if _, _, err := d.await(ctx, d.acts[len(d.acts)-1]); err != nil {
			return err
		}
		if err := d.forgive(ctx); err != nil {
			return err
		}
	}
	return nil
}

// outage takes the provider away while orders come in, until a breaker has opened, and gives it back.
func (d *director) outage(ctx context.Context) error {
	if err := d.tell(ctx, simulator.Rule{Call: simulator.Charges, Do: simulator.Fail}); err != nil {
		return err
	}
	for i := range outageOrders {
		body := newBody(rich, plenty, "GB")
		body.Card = visa
		if _, err := d.place(ctx, fmt.Sprintf("placed while the provider is away (%d)", i+1), body, confirmed); err != nil {
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
	if err := d.forgive(ctx); err != nil {
		return err
	}
	for _, a := range d.acts[len(d.acts)-outageOrders:] {
		if _, _, err := d.await(ctx, a); err != nil {
			return err
		}
	}
	return d.mend(ctx)
}

// mend sees the breaker of the first replica closed. It closes at its next call, which the other replica
// may have made instead, so there are more orders until it has had one.
func (d *director) mend(ctx context.Context) (err error) {
	for range maxMending {
		if d.mended, err = d.breaker(ctx); err != nil || d.mended.State == "closed" {
			return err
		}
		body := newBody(rich, plenty, "GB")
		body.Card = visa
		if _, err := d.place(ctx, "placed when the provider is back", body, confirmed); err != nil {
			return err
		}
		if _, _, err := d.await(ctx, d.acts[len(d.acts)-1]); err != nil {
			return err
		}
	}
	return nil
}

// breaker is that of payments' first replica.
func (d *director) breaker(ctx context.Context) (cli.Breaker, error) {
	var list []cli.Breaker
	if err := d.Call(ctx, "payments", "GET", "/admin/breakers", nil, nil, &list); err != nil {
		return cli.Breaker{}, err
	}
	if len(list) == 0 {
		return cli.Breaker{}, fmt.Errorf("payments has no breaker")
	}
	return list[0], nil
}

// witnessed compares each card order with the journal of the provider: what was taken from it and given
// back, each at most once.
func (d *director) witnessed(ctx context.Context, danced []Danced) (violations []string, err error) {
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
	for _, o := range danced {
		charges, refunds := done[o.OrderID][simulator.Charges], done[o.OrderID][simulator.Refunds]
		kept := o.Got.Payment == payments.RefundRefused || o.Got.Payment == payments.Captured && o.Card
		if charges > 1 || charges-refunds != map[bool]int{true: 1}[kept] {
			violations = append(violations, fmt.Sprintf("provider: order %s was charged %d times and refunded %d times, and its payment is %s",
				o.OrderID, charges, refunds, o.Got.Payment))
		}
		bookings, recalls := done[o.OrderID][simulator.Bookings], done[o.OrderID][simulator.Recalls]
		goes := o.Got.Shipment == shipping.Scheduled || o.Got.Shipment == shipping.RecallRefused
		if bookings > 1 || bookings-recalls != map[bool]int{true: 1}[goes] {
			violations = append(violations, fmt.Sprintf("carrier: order %s was booked %d times and recalled %d times, and its shipment is %s",
				o.OrderID, bookings, recalls, o.Got.Shipment))
		}
	}
	if d.mended.State != "closed" || d.mended.Opened == 0 {
		violations = append(violations, fmt.Sprintf("the breaker of the provider should have opened and closed again: %+v", d.mended))
	}
	return violations, nil
}

// sinceOpened tells how the outage went.
func (d *director) sinceOpened() string {
	return fmt.Sprintf("the provider was away: its breaker opened %d times in one replica, %d calls were not made, it closed at %s, and nothing was lost",
		d.mended.Opened, d.mended.Refused, d.mended.Since.Format(time.TimeOnly))
}
