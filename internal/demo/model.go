package demo

import (
	"fmt"
	"slices"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/events/fulfilment"
	"github.com/quadrille-go/quadrille/internal/inventory"
	"github.com/quadrille-go/quadrille/internal/orders"
	"github.com/quadrille-go/quadrille/internal/payments"
	"github.com/quadrille-go/quadrille/internal/shipping"
	"github.com/quadrille-go/quadrille/internal/simulator"
)

// Reactors are the production reactions of the four services, without an outside world.
func Reactors() []consumer.Reactor { return Model{}.reactors() }

// reactors are the production reactions of the four services, with an outside world that answers
// each request at some time, after which its answer is an event like any other.
func (m Model) reactors() []consumer.Reactor {
	pay, ship := payments.Participant, shipping.Participant(m.Carrier, shipping.Countries...)
	pay.React = append(slices.Clone(pay.React),
		answer[payments.State](m.Refuses == simulator.Charges, func(e fulfilment.ChargeRequested) (yes,
			no events.Payload) {
			return fulfilment.ChargeSucceeded{OrderID: e.OrderID},
				fulfilment.ChargeDeclined{OrderID: e.OrderID, Reason: "no"}
		}),
		answer[payments.State](m.Refuses == simulator.Refunds, func(e fulfilment.RefundRequested) (yes,
			no events.Payload) {
			return fulfilment.RefundSucceeded{OrderID: e.OrderID},
				fulfilment.RefundRefused{OrderID: e.OrderID, Reason: "no"}
		}))
	ship.React = append(slices.Clone(ship.React),
		answer[shipping.State](m.Refuses == simulator.Bookings, func(e fulfilment.BookingRequested) (yes,
			no events.Payload) {
			return fulfilment.BookingConfirmed{OrderID: e.OrderID},
				fulfilment.BookingRefused{OrderID: e.OrderID, Reason: "no"}
		}),
		answer[shipping.State](m.Refuses == simulator.Recalls, func(e fulfilment.RecallRequested) (yes,
			no events.Payload) {
			return fulfilment.RecallSucceeded(e), fulfilment.RecallRefused{OrderID: e.OrderID, Reason: "no"}
		}))
	return []consumer.Reactor{
		orders.Participant.Reactor(), m.witness(pay.Reactor(), "charge.succeeded", "refund.succeeded"),
		inventory.Participant.Reactor(), m.witness(ship.Reactor(), "booking.confirmed",
			"recall.succeeded"),
	}
}

// answer stands for an outside call.
func answer[S any, T events.Payload](refuses bool,
	of func(T) (yes, no events.Payload)) consumer.Reaction[S] {
	return consumer.On(func(_ *S, e events.Of[T]) []events.Payload {
		yes, no := of(e.Data)
		if refuses {
			return []events.Payload{no}
		}
		return []events.Payload{yes}
	})
}

// journal is what an outside world did about one order, which it knows better than any service.
type journal struct{ Done, Undone int }

const outsideTable = "outside"

// witness keeps the journal of an outside world in the memory of the service that asks it. Where
// events come twice, so do requests, with the key that they had: it is not done again.
func (m Model) witness(r consumer.Reactor, does, undoes string) consumer.Reactor {
	keyed := m.Duplicates > 0
	return consumer.Reactor{Name: r.Name, React: func(m consumer.Memory,
		e events.Event) ([]events.Payload, error) {
		published, err := r.React(m, e)
		for _, p := range published {
			var j journal
			if p.EventType() != does && p.EventType() != undoes {
				continue
			}
			if _, err := m.Row(outsideTable, p.Subject(), &j); err != nil {
				return nil, err
			}
			switch {
			case p.EventType() == does && (!keyed || j.Done == 0):
				j.Done++
			case p.EventType() == undoes && (!keyed || j.Undone == 0):
				j.Undone++
			}
			if err := m.Put(outsideTable, p.Subject(), j); err != nil {
				return nil, err
			}
		}
		return published, err
	}}
}

// witnessed: the outside world charged and booked what is confirmed, once, and took everything else
// back, unless it refuses to.
func (m Model) witnessed(f facts, confirmed bool) error {
	kept := func(j journal, asked, refuses bool) bool {
		want := 0
		if confirmed && asked || refuses && j.Done > 0 {
			want = 1
		}
		return j.Done <= 1 && j.Done-j.Undone == want
	}
	if !kept(f.charges, m.Card, m.Refuses == simulator.Refunds) {
		return fmt.Errorf("charged and refunded: %+v", f.charges)
	}
	if !kept(f.bookings, m.Carrier, m.Refuses == simulator.Recalls) {
		return fmt.Errorf("booked and recalled: %+v", f.bookings)
	}
	return nil
}

// undone: nothing is paid, nothing is shipped, and nothing is under way. What the outside world
// refuses to undo waits for a person, in a state of its own.
func (m Model) undone(f facts) bool {
	switch f.payment.State {
	case payments.Captured, payments.Charging, payments.Unwanted, payments.Refunding:
		return false
	case payments.RefundRefused:
		if m.Refuses != simulator.Refunds {
			return false
		}
	}
	switch f.shipment.State {
	case shipping.Scheduled, shipping.Booking, shipping.Unwanted, shipping.Recalling:
		return false
	case shipping.RecallRefused:
		return m.Refuses == simulator.Recalls
	}
	return true
}
