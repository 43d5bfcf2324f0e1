package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/events/fulfilment"
	"github.com/quadrille-go/quadrille/rabbit"
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
		expectedOrder{"one test event published five times", repeated, confirmed, false},
		expectedOrder{"known only from a test event", unknown, adopted, false})
	record, err := copies.Record()
	if err != nil {
		return err
	}
	alone, err := events.Cause(events.Command(lone, time.Now()), "/payments", time.Now(),
		lone).Record()
	if err != nil {
		return err
	}
	messages := []rabbit.Message{message("payments", alone)}
	for range 5 {
		messages = append(messages, message("orders", record))
	}
	return d.publish(ctx, messages...)
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
	forged := message("shipping", record)
	forged.Key = "shipment.scheduled"
	garbage := rabbit.Message{Exchange: topology.ExchangeOf("orders"), Key: "order.placed",
		Publishing: amqp.Publishing{
			MessageId: events.NewID(), Type: "order.placed", ContentType: "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         []byte(`{"order_id": "me", "lines": [{"quantity": -1, "quantity": 1e3}`),
		}}
	d.bad = append(d.bad, badMessage{"orders", "order.placed"})
	for _, subscriber := range topology.Fulfilment().Subscribers("order.placed") {
		d.bad = append(d.bad, badMessage{subscriber, "order.placed"})
	}
	return d.publish(ctx, forged, garbage)
}

func message(owner string, r events.Record) rabbit.Message {
	return rabbit.Message{Exchange: topology.ExchangeOf(owner), Key: r.Type, Mandatory: true,
		Publishing: rabbit.Publishing(r)}
}

// publish publishes messages as the operator and waits for the confirms.
func (d *player) publish(ctx context.Context, messages ...rabbit.Message) error {
	session, err := rabbit.Open(ctx, d.stack.operatorURL(), "demo")
	if err != nil {
		return err
	}
	defer session.Close()
	publisher, err := rabbit.NewPublisher(session)
	if err != nil {
		return err
	}
	pendings, err := publisher.Publish(messages)
	if err != nil {
		return err
	}
	for _, p := range pendings {
		outcome, why, err := publisher.Wait(ctx, p)
		if err != nil || outcome != rabbit.Confirmed {
			return fmt.Errorf("publish test events: %w", errors.Join(err, why))
		}
	}
	return nil
}
