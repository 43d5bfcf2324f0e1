package demo

import (
	"fmt"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inventory"
	"github.com/quadrille-go/quadrille/internal/orders"
	"github.com/quadrille-go/quadrille/internal/payments"
	"github.com/quadrille-go/quadrille/internal/shipping"
	"github.com/quadrille-go/quadrille/internal/simulator"
)

// Reactors are the reactions of production, without an outside.
func Reactors() []consumer.Reactor { return Model{}.reactors() }

// reactors are the reactions of production. Without a carrier shipping does not ask one.
func (m Model) reactors() []consumer.Reactor {
	return []consumer.Reactor{
		orders.Participant.Reactor(), payments.Participant.Reactor(), inventory.Participant.Reactor(),
		shipping.Participant(m.Carrier, shipping.Countries...).Reactor(),
	}
}

// journal is what the outside has done about one order, which it knows better than any service.
type journal struct{ Done, Undone int }

const outsideTable = "outside"

// outside answers the calls of payments and shipping as the provider and the carrier do: it keeps a
// journal, and does nothing twice under one idempotency key. There is one key for each order and
// kind of call, since no order asks for the same thing twice.
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
