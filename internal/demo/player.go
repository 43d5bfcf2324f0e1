package demo

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
	"github.com/quadrille-go/quadrille/outbox"
)

// player runs the demo: it acts as the customers and the operator, and causes the faults.
type player struct {
	*cli.Env
	stack      *Stack
	simulators simulatorClient
	orders     []expectedOrder
	bad        []badMessage

	closed admin.Breaker // the breaker of the provider after the outage
	relays string        // how the relays were switched
}

// expectedOrder is one order and its expected end.
type expectedOrder struct {
	name   string
	order  string
	expect Ending
	card   bool // a card pays
}

// badMessage is a message that a service must park.
type badMessage struct{ service, eventType string }

// The customers and the goods of the demo.
const (
	rich, poor     = "ada", "bob"
	plenty, scarce = "teapot", "samovar"
	deposits       = 1_000_000
	received       = 100
	shortDeadline  = 8 // seconds; a busy machine must capture and reserve within them
)

// run places orders that together use every event of the topology.
func (d *player) run(ctx context.Context) error {
	for _, part := range []func(context.Context) error{d.stock, d.ordinary,
		d.relayFrom(outbox.FromStream), d.refused, d.repeated, d.cancelledEarly, d.shippingStopped,
		d.cards, d.outage, d.relayFrom(outbox.FromWindow), d.testEvents, d.forged} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stock opens the accounts and receives the goods.
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

// place places an order and records its expected end.
func (d *player) place(ctx context.Context, name string, body newOrder, expect Ending) (string,
	error) {
	var o orders.View
	if err := d.Call(ctx, "orders", "POST", "/orders", idempotent(), body, &o); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	d.orders = append(d.orders, expectedOrder{name, o.ID, expect, body.Card != ""})
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
	if _, _, err := d.await(ctx, d.orders[len(d.orders)-1]); err != nil {
		return err
	}
	if err := d.cancel(ctx, id); err == nil {
		d.orders[len(d.orders)-1].expect.Order = "409 for a cancellation after the confirmation"
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

// repeated sends one request three times with the same key.
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
		expect.Order = fmt.Sprintf("one order instead of %d", len(ids))
	}
	d.orders = append(d.orders, expectedOrder{"the same POST three times: one order", o.ID, expect,
		false})
	_, _, err := d.await(ctx, d.orders[len(d.orders)-1]) // the next parts stop processes
	return err
}

// cancelledEarly cancels an order while payments is stopped. Payments then handles the two events
// in any order, and must not keep a charge.
func (d *player) cancelledEarly(ctx context.Context) error {
	d.signal("payments", syscall.SIGSTOP)
	defer d.signal("payments", syscall.SIGCONT)
	id, err := d.place(ctx, "the customer cancels early", newBody(rich, plenty, "GB"), cancelledEarly)
	if err != nil {
		return err
	}
	return d.cancel(ctx, id)
}

// shippingStopped stops shipping: two orders are cancelled while their stock is reserved, and a
// third reaches its deadline. The remaining replica then handles the reservation before the
// cancellation, so it schedules and cancels. All three orders have ended when it returns, because
// the next part clears the fault rules of the carrier.
func (d *player) shippingStopped(ctx context.Context) error {
	d.stack.processes.Stop(ctx, "shipping-2", stopTimeout)
	d.stack.processes.Signal("shipping-1", syscall.SIGSTOP)
	resume := func() { d.stack.processes.Signal("shipping-1", syscall.SIGCONT) }
	defer resume()
	late, err := d.place(ctx, "the customer cancels late", newBody(rich, plenty, "GB"), cancelledLate)
	if err != nil {
		return err
	}
	refused, err := d.place(ctx, "the customer cancels late, and the carrier refuses the recall",
		newBody(rich, plenty, "GB"), recallRefused)
	if err != nil {
		return err
	}
	if err := d.simulators.setRule(ctx, simulator.Rule{Call: simulator.Recalls, OrderID: refused,
		Do: simulator.Refuse}); err != nil {
		return err
	}
	body := newBody(rich, plenty, "GB")
	body.DeadlineSeconds = shortDeadline
	expired, err := d.place(ctx, "the deadline passes while shipping is stopped", body, expired)
	if err != nil {
		return err
	}
	for _, id := range []string{late, refused} {
		if err := d.awaitReservation(ctx, id, "reserved"); err != nil {
			return err
		}
	}
	// On a slow machine the deadline may have passed already; then the stock was reserved and is
	// released.
	if err := d.awaitReservation(ctx, expired, "reserved", "released"); err != nil {
		return err
	}
	if err := errors.Join(d.cancel(ctx, late), d.cancel(ctx, refused)); err != nil {
		return err
	}
	for _, id := range []string{late, refused, expired} {
		if err := d.awaitReservation(ctx, id, "released"); err != nil {
			return err
		}
	}
	resume()
	if err := d.stack.startServices(ctx); err != nil { // restarts the replica that was stopped
		return err
	}
	for _, o := range d.orders[len(d.orders)-3:] {
		if _, _, err := d.await(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// signal sends a signal to all replicas of a service.
func (d *player) signal(service string, sig syscall.Signal) {
	for i := 1; i <= d.stack.Replicas; i++ {
		d.stack.processes.Signal(fmt.Sprintf("%s-%d", service, i), sig)
	}
}
