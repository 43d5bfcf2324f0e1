package demo

import (
	"context"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/topology"
)

// testEvents publishes events about orders that the service orders does not know.
func (d *player) testEvents(ctx context.Context) error {
	repeated := events.NewID()
	placed := fulfilment.OrderPlaced{OrderID: repeated, Customer: rich, Currency: "EUR",
		Lines: newBody(rich, plenty, "GB").Lines, Address: newBody(rich, plenty, "GB").Address}
	copies := events.Cause(events.Command(placed, time.Now()), "/orders", time.Now(), placed)
	unknown := events.NewID()
	lone := fulfilment.PaymentDeclined{OrderID: unknown, Reason: fulfilment.ReasonNoFunds}
	d.orders = append(d.orders,
		expectedOrder{"one event published by hand, five times: one order", repeated, confirmed, false},
		expectedOrder{"nobody placed it: only an event published by hand is about it", unknown, adopted,
			false})
	record, err := copies.Record()
	if err != nil {
		return err
	}
	alone, err := events.Cause(events.Command(lone, time.Now()), "/payments", time.Now(),
		lone).Record()
	if err != nil {
		return err
	}
	published := []quadrille.TestEvent{testEvent("payments", alone)}
	for range 5 {
		published = append(published, testEvent("orders", record))
	}
	return quadrille.PublishTestEvents(ctx, d.stack.logins.operatorURL(), published...)
}

// forged publishes a forged and a malformed event. Services must park them, and they must have no
// effect.
func (d *player) forged(ctx context.Context) error {
	claim := fulfilment.Samples(events.NewID())[0]
	record, err := events.Cause(events.Command(claim, time.Now()), "/orders", time.Now(),
		claim).Record()
	if err != nil {
		return err
	}
	// through the exchange of shipping, under a routing key that is bound
	forged := testEvent("shipping", record)
	forged.RoutingKey = "shipment.scheduled"
	garbage := testEvent("orders", events.Record{ID: events.NewID(), Source: "/orders",
		Type: "order.placed",
		Data: []byte(`{"order_id": "me", "lines": [{"quantity": -1, "quantity": 1e3}`)})
	d.bad = append(d.bad, badMessage{"orders", "order.placed"})
	for _, subscriber := range fulfilment.Topology().Subscribers("order.placed") {
		d.bad = append(d.bad, badMessage{subscriber, "order.placed"})
	}
	return quadrille.PublishTestEvents(ctx, d.stack.logins.operatorURL(), forged, garbage)
}

func testEvent(owner string, r events.Record) quadrille.TestEvent {
	return quadrille.TestEvent{Exchange: topology.ExchangeOf(owner), RoutingKey: r.Type, Record: r}
}
