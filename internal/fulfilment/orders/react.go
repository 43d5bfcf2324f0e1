package orders

import (
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

// Participant is the part of orders in the choreography, with its own commands.
var Participant = participant(func(Order, time.Time) {})

// participant is Participant, of which e is told each order that has ended.
func participant(e end) consumer.Participant[State] {
	return consumer.Participant[State]{Name: "orders", Locks: locks,
		React: []consumer.Reaction[State]{
			consumer.On(place),
			watch(e, cancel),
			watch(e, expire),
			watch(e, declined),
			watch(e, rejected),
			watch(e, failed),
			watch(e, confirm),
		}}
}

// Place is the command to place an order, to be confirmed within a time.
type Place struct {
	fulfilment.OrderPlaced
	Within time.Duration
}

// Cancel is the customer's command to cancel.
type Cancel struct{ OrderID string }

// Expire is the deadline of an order. It waits in the database until it is due.
type Expire struct {
	OrderID string `json:"order_id"`
}

// The commands never travel, but they are named like events.
func (Place) EventType() string      { return "orders.place" }
func (Cancel) EventType() string     { return "orders.cancel" }
func (Expire) EventType() string     { return "orders.expire" }
func (c Cancel) Subject() string     { return c.OrderID }
func (c Expire) Subject() string     { return c.OrderID }
func locks(s *State, e events.Event) { s.Orders.Lock(e.Data.Subject()) }

func place(s *State, e events.Of[Place]) (consumer.Effects, error) {
	c := e.Data
	if _, known := s.Orders.Get(c.OrderID); known {
		return consumer.Effects{}, nil
	}
	amount, err := fulfilment.Total(c.Lines)
	if err != nil {
		panic(err) // a valid order adds up
	}
	deadline := e.Time.Add(c.Within)
	o := Order{
		OrderID: c.OrderID, State: Placed, Customer: c.Customer, Currency: c.Currency, Amount: amount,
		PlacedAt: e.Time, Deadline: deadline, UpdatedAt: e.Time,
	}
	o.Lines.V, o.Address.V = c.Lines, c.Address
	s.Orders.Set(c.OrderID, o)
	return consumer.Publish(c.OrderPlaced).And(consumer.Schedule(c.Within,
		Expire{OrderID: c.OrderID})), nil
}

func cancel(s *State, e events.Of[Cancel]) (consumer.Effects, error) {
	if _, known := s.Orders.Get(e.Data.OrderID); !known {
		return consumer.Effects{}, nil // the order does not exist, and the caller answers 404
	}
	return finish(s, e.Event, fulfilment.ReasonCustomer)
}

func expire(s *State, e events.Of[Expire]) (consumer.Effects, error) {
	return finish(s, e.Event, fulfilment.ReasonDeadline)
}

func declined(s *State, e events.Of[fulfilment.PaymentDeclined]) (consumer.Effects, error) {
	return finish(s, e.Event, e.Data.Reason)
}

func rejected(s *State, e events.Of[fulfilment.StockRejected]) (consumer.Effects, error) {
	return finish(s, e.Event, e.Data.Reason)
}

func failed(s *State, e events.Of[fulfilment.ShipmentFailed]) (consumer.Effects, error) {
	return finish(s, e.Event, e.Data.Reason)
}

// finish cancels an order that is still open.
func finish(s *State, e events.Event, reason string) (consumer.Effects, error) {
	o := adopt(s, e)
	if o.State != Placed {
		return consumer.Effects{}, nil
	}
	o.State, o.Reason, o.UpdatedAt = Cancelled, reason, e.Time
	s.Orders.Set(o.OrderID, o)
	return consumer.Publish(fulfilment.OrderCancelled{OrderID: o.OrderID, Reason: reason}), nil
}

// confirm ends an order well, unless it was cancelled before: then all
// services compensate.
func confirm(s *State, e events.Of[fulfilment.ShipmentScheduled]) (consumer.Effects, error) {
	o := adopt(s, e.Event)
	if o.State != Placed {
		return consumer.Effects{}, nil
	}
	o.State, o.UpdatedAt = Confirmed, e.Time
	s.Orders.Set(o.OrderID, o)
	return consumer.Publish(fulfilment.OrderConfirmed{OrderID: o.OrderID}), nil
}

// adopt returns the order that an event is about; one that is not known is open.
func adopt(s *State, e events.Event) Order {
	o, known := s.Orders.Get(e.Data.Subject())
	if !known {
		o = Order{OrderID: e.Data.Subject(), State: Placed, Adopted: true, PlacedAt: e.Time,
			Deadline: e.Time}
	}
	return o
}
