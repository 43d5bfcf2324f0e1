package demo

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events/fulfilment"
	"github.com/quadrille-go/quadrille/internal/orders"
	"github.com/quadrille-go/quadrille/internal/simulator"
)

// player plays the demo: it is the customers, the operator and the trouble.
type player struct {
	*cli.Env
	stack  *Stack
	scenes []act
	bad    []badMessage

	repaired cli.Breaker // that of the provider, after its outage
	relayed  string      // how the ways out of the outboxes changed
}

// act is one order and what is expected of it.
type act struct {
	name   string
	order  string
	expect Ending
	card   bool // it pays
}

// badMessage is something that must end parked at a service.
type badMessage struct{ service, eventType string }

// The customers and the goods of the demo.
const (
	rich, poor     = "ada", "bob"
	plenty, scarce = "teapot", "samovar"
	deposits       = 1_000_000
	received       = 100
	shortDeadline  = 8 // seconds, in which a busy machine must take the payment and the stock
)

// run takes orders through every row of the choreography.
func (d *player) run(ctx context.Context) error {
	for _, scene := range []func(context.Context) error{d.stock, d.ordinary, d.streamed, d.refused,
		d.repeated, d.early, d.held, d.cards, d.outage, d.windowed, d.tests, d.forged} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stock opens accounts and fills the shelves.
func (d *player) stock(ctx context.Context) error {
	for customer, amount := range map[string]int64{rich: deposits, poor: 100} {
		if err := d.Call(ctx, "payments", "PUT", "/accounts/"+customer, nil,
			map[string]any{"currency": "EUR"}, nil); err != nil {
			return err
		}
		if err := d.Call(ctx, "payments", "POST", "/accounts/"+customer+"/deposits", idempotent(),
			map[string]any{"amount": amount, "currency": "EUR"}, nil); err != nil {
			return err
		}
	}
	return d.Call(ctx, "inventory", "POST", "/stock/"+plenty+"/receipts", idempotent(),
		map[string]any{"quantity": received}, nil)
}

func newBody(customer, sku, country string) newOrder {
	return newOrder{
		Customer: customer, Currency: "EUR",
		Lines: []fulfilment.Line{{SKU: sku, Quantity: 1, UnitPrice: 2500}},
		Address: fulfilment.Address{Name: "Ada Lovelace", Street: "12 St James's Square", City: "London",
			PostalCode: "SW1Y 4JH", Country: country},
	}
}

// place places an order and notes what is expected of it.
func (d *player) place(ctx context.Context, name string, body newOrder, expect Ending) (string,
	error) {
	var o orders.View
	if err := d.Call(ctx, "orders", "POST", "/orders", idempotent(), body, &o); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	d.scenes = append(d.scenes, act{name, o.ID, expect, body.Card != ""})
	return o.ID, nil
}

func (d *player) cancel(ctx context.Context, id string) error {
	return d.Call(ctx, "orders", "POST", "/orders/"+id+"/cancellation", nil, nil, nil)
}

func (d *player) ordinary(ctx context.Context) error {
	several := newBody(rich, plenty, "DE")
	several.Lines = append(several.Lines, fulfilment.Line{SKU: plenty, Quantity: 2, UnitPrice: 2400})
	_, err1 := d.place(ctx, "confirmed", newBody(rich, plenty, "GB"), confirmed)
	_, err2 := d.place(ctx, "confirmed, with several lines", several, confirmed)
	id, err3 := d.place(ctx, "the customer cancels too late", newBody(rich, plenty, "FR"), confirmed)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if _, _, err := d.await(ctx, d.scenes[len(d.scenes)-1]); err != nil {
		return err
	}
	if err := d.cancel(ctx, id); err == nil {
		d.scenes[len(d.scenes)-1].expect.Order = "409 when it was cancelled after its confirmation"
	}
	return nil
}

func (d *player) refused(ctx context.Context) error {
	_, err1 := d.place(ctx, "declined: no funds", newBody(poor, plenty, "GB"), declined)
	_, err2 := d.place(ctx, "declined: no account", newBody("nobody", plenty, "GB"), declined)
	_, err3 := d.place(ctx, "out of stock", newBody(rich, scarce, "GB"), outOfStock)
	_, err4 := d.place(ctx, "the carrier refuses", newBody(rich, plenty, "AQ"), notShipped)
	return errors.Join(err1, err2, err3, err4)
}

// repeated sends one request three times with one key.
func (d *player) repeated(ctx context.Context) error {
	once := idempotent()
	ids := map[string]bool{}
	var o orders.View
	for range 3 {
		if err := d.Call(ctx, "orders", "POST", "/orders", once, newBody(rich, plenty, "GB"),
			&o); err != nil {
			return err
		}
		ids[o.ID] = true
	}
	expect := confirmed
	if len(ids) != 1 {
		expect.Order = fmt.Sprintf("one order, not %d", len(ids))
	}
	d.scenes = append(d.scenes, act{"the same POST three times: one order", o.ID, expect, false})
	_, _, err := d.await(ctx, d.scenes[len(d.scenes)-1]) // before processes are stopped
	return err
}

// early cancels while payments cannot have heard of the order yet: whichever of the two events it
// then hears first, nobody pays.
func (d *player) early(ctx context.Context) error {
	d.signal("payments", syscall.SIGSTOP)
	defer d.signal("payments", syscall.SIGCONT)
	id, err := d.place(ctx, "the customer cancels early", newBody(rich, plenty, "GB"), cancelledEarly)
	if err != nil {
		return err
	}
	return d.cancel(ctx, id)
}

// held stops shipping: one order is cancelled while its stock is reserved, the other runs into its
// deadline. The one replica that is left then hears of the reservation first and of the end after
// it, so that it schedules and cancels. All three have ended when it returns: what the carrier was
// told about one of them is forgotten in the next scene.
func (d *player) held(ctx context.Context) error {
	d.stack.stop(ctx, "shipping-2")
	d.stack.state.signal("shipping-1", syscall.SIGSTOP)
	resume := func() { d.stack.state.signal("shipping-1", syscall.SIGCONT) }
	defer resume()
	late, err := d.place(ctx, "the customer cancels late", newBody(rich, plenty, "GB"), cancelledLate)
	if err != nil {
		return err
	}
	stuck,
		err := d.place(ctx, "the customer cancels late, and the carrier does not give the parcel back",
		newBody(rich, plenty, "GB"), recallRefused)
	if err != nil {
		return err
	}
	if err := d.print(ctx, simulator.Rule{Call: simulator.Recalls, OrderID: stuck,
		Do: simulator.Refuse}); err != nil {
		return err
	}
	body := newBody(rich, plenty, "GB")
	body.DeadlineSeconds = shortDeadline
	expired, err := d.place(ctx, "the deadline passes while shipping stands still", body, expired)
	if err != nil {
		return err
	}
	for _, id := range []string{late, stuck} {
		if err := d.awaitReservation(ctx, id, "reserved"); err != nil {
			return err
		}
	}
	// On a slow machine the deadline has passed by now: what is released was reserved.
	if err := d.awaitReservation(ctx, expired, "reserved", "released"); err != nil {
		return err
	}
	if err := errors.Join(d.cancel(ctx, late), d.cancel(ctx, stuck)); err != nil {
		return err
	}
	for _, id := range []string{late, stuck, expired} {
		if err := d.awaitReservation(ctx, id, "released"); err != nil {
			return err
		}
	}
	resume()
	if err := d.stack.startServices(ctx); err != nil { // the replica that was stopped
		return err
	}
	for _, a := range d.scenes[len(d.scenes)-3:] {
		if _, _, err := d.await(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// signal is for all replicas of a service.
func (d *player) signal(service string, sig syscall.Signal) {
	for i := 1; i <= d.stack.Replicas; i++ {
		d.stack.state.signal(fmt.Sprintf("%s-%d", service, i), sig)
	}
}
