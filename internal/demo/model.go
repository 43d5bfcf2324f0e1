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

// Reactors returns the production reactions of the four services, without a payment provider and a
// carrier.
func Reactors() []consumer.Reactor { return Model{}.reactors() }

// reactors returns the production reactions of the four services and a reaction for each outside
// call. The exploration delivers the answer of a call at any time, like any other event.
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
		orders.Participant.Reactor(), m.withJournal(pay.Reactor(), "charge.succeeded",
			"refund.succeeded"),
		inventory.Participant.Reactor(), m.withJournal(ship.Reactor(), "booking.confirmed",
			"recall.succeeded"),
	}
}

// answer is a reaction that takes the place of an outside call.
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

// journal counts the effects of an outside peer for one order. The invariants compare it with the
// states of the services.
type journal struct{ Done, Undone int }

const outsideTable = "outside"

// withJournal wraps a reactor so that it records the effects of the outside peer in the memory of
// the calling service. If the model has duplicates, a repeated request has the same idempotency key
// and no second effect.
func (m Model) withJournal(r consumer.Reactor, does, undoes string) consumer.Reactor {
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

// checkJournals checks the journals at rest: a confirmed order was charged and booked once, and for
// any other order the charge and the booking were undone, unless the peer refuses.
func (m Model) checkJournals(f orderStates, confirmed bool) error {
	correct := func(j journal, requested, refuses bool) bool {
		want := 0
		if confirmed && requested || refuses && j.Done > 0 {
			want = 1
		}
		return j.Done <= 1 && j.Done-j.Undone == want
	}
	if !correct(f.charges, m.Card, m.Refuses == simulator.Refunds) {
		return fmt.Errorf("charges and refunds at the provider: %+v", f.charges)
	}
	if !correct(f.bookings, m.Carrier, m.Refuses == simulator.Recalls) {
		return fmt.Errorf("bookings and recalls at the carrier: %+v", f.bookings)
	}
	return nil
}

// undone reports whether nothing is paid, shipped or in progress. A refused refund or recall counts
// as undone in a model in which the peer refuses it.
func (m Model) undone(f orderStates) bool {
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
