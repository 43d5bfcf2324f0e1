package demo

import (
	"fmt"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
)

// Reactors returns the production reactions of the four services, without a payment provider and a
// carrier.
func Reactors() []consumer.Reactor { return Model{}.reactors() }

// reactors returns the production reactions of the four services. Without a carrier, shipping
// decides by itself.
func (m Model) reactors() []consumer.Reactor {
	return []consumer.Reactor{
		orders.Participant.Reactor(), payments.Participant.Reactor(), inventory.Participant.Reactor(),
		shipping.Participant(m.Carrier, shipping.Countries...).Reactor(),
	}
}

// journal counts the effects of an outside peer for one order. The invariants compare it with the
// states of the services.
type journal struct{ Done, Undone int }

const outsideTable = "outside"

// outside returns the answers of the provider and the carrier to the calls of payments and
// shipping. They keep a journal and have no second effect for one idempotency key. An order has one
// key for each kind of call, because no order requests the same call twice.
func (m Model) outside() map[string]func(consumer.Memory, events.Payload) (events.Payload, error) {
	answers := func(kind string, undoes bool, yes, no func(order string) events.Payload,
	) func(consumer.Memory, events.Payload) (events.Payload, error) {
		return func(memory consumer.Memory, request events.Payload) (events.Payload, error) {
			order := request.Subject()
			if m.Refuses == kind {
				return no(order), nil
			}
			var j journal
			if _, err := memory.Row(outsideTable, order, &j); err != nil {
				return nil, err
			}
			done := &j.Done
			if undoes {
				done = &j.Undone
			}
			if m.Duplicates == 0 || *done == 0 {
				*done++
			}
			return yes(order), memory.Put(outsideTable, order, j)
		}
	}
	return map[string]func(consumer.Memory, events.Payload) (events.Payload, error){
		payments.Charge{}.EventType(): answers(simulator.Charges, false,
			func(order string) events.Payload { return payments.ChargeSucceeded{OrderID: order} },
			func(order string) events.Payload {
				return payments.ChargeDeclined{OrderID: order, Reason: "no"}
			}),
		payments.Refund{}.EventType(): answers(simulator.Refunds, true,
			func(order string) events.Payload { return payments.RefundSucceeded{OrderID: order} },
			func(order string) events.Payload {
				return payments.RefundWasRefused{OrderID: order, Reason: "no"}
			}),
		shipping.Book{}.EventType(): answers(simulator.Bookings, false,
			func(order string) events.Payload { return shipping.BookingConfirmed{OrderID: order} },
			func(order string) events.Payload {
				return shipping.BookingRefused{OrderID: order, Reason: "no"}
			}),
		shipping.Recall{}.EventType(): answers(simulator.Recalls, true,
			func(order string) events.Payload { return shipping.RecallSucceeded{OrderID: order} },
			func(order string) events.Payload {
				return shipping.RecallWasRefused{OrderID: order, Reason: "no"}
			}),
	}
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
