package demo

import (
	"fmt"
	"slices"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
)

// audited is what the four services know of one order, and how many events of each type they have
// published about it. A service that does not know the order has an empty state. Published is nil
// when the history does not reach back to the order.
type audited struct {
	order       orders.View
	payment     payments.Payment
	reservation inventory.View
	shipment    shipping.View
	published   map[string]int
}

// atRest reports whether the order has ended in the service orders. The others may still react to
// it.
func (a audited) atRest() bool {
	return a.order.State == orders.Confirmed || a.order.State == orders.Cancelled
}

// undone reports whether nothing is paid, reserved or shipped, or a person must act about what is.
func (a audited) undone() bool {
	switch a.payment.State {
	case "", payments.Void, payments.Declined, payments.Refunded, payments.RefundRefused:
	default:
		return false
	}
	switch a.reservation.State {
	case inventory.Reserved, inventory.Committed:
		return false
	}
	switch a.shipment.State {
	case "", shipping.Void, shipping.Waiting, shipping.Failed, shipping.Cancelled,
		shipping.RecallRefused:
		return true
	}
	return false
}

// contradictions returns what contradicts the rules for an order that is at rest.
func (a audited) contradictions() (found []string) {
	say := func(format string, values ...any) { found = append(found, fmt.Sprintf(format, values...)) }
	states := Ending{none(a.order.State), none(a.payment.State), none(a.reservation.State),
		none(a.shipment.State)}
	switch a.order.State {
	case orders.Confirmed:
		if a.payment.State != payments.Captured || a.reservation.State != inventory.Committed ||
			a.shipment.State != shipping.Scheduled {
			say("a confirmed order is captured, committed and scheduled: %s", states)
		}
	case orders.Cancelled:
		if !a.undone() {
			say("of a cancelled order nothing is paid, reserved or shipped: %s", states)
		}
	case orders.Placed:
		return nil // it is under way
	default:
		say("the service orders does not know it: %s", states)
		return found
	}
	return append(found, slices.Concat(a.amounts(), a.events())...)
}

// amounts compares what was paid and reserved with what was ordered. An adopted order has neither
// an amount nor lines.
func (a audited) amounts() (found []string) {
	if a.order.Adopted {
		return nil
	}
	if a.payment.Amount != 0 && (a.payment.Amount != a.order.Amount ||
		a.payment.Currency != a.order.Currency) {
		found = append(found, fmt.Sprintf("the order is about %d %s, the payment about %d %s",
			a.order.Amount, a.order.Currency, a.payment.Amount, a.payment.Currency))
	}
	if len(a.reservation.Lines) > 0 {
		ordered, reserved := map[string]int64{}, map[string]int64{}
		for _, l := range a.order.Lines {
			ordered[l.SKU] += l.Quantity
		}
		for _, l := range a.reservation.Lines {
			reserved[l.SKU] += l.Quantity
		}
		for _, l := range a.order.Lines {
			if ordered[l.SKU] != reserved[l.SKU] {
				found = append(found, fmt.Sprintf("%d of %s are ordered, and %d are in the reservation",
					ordered[l.SKU], l.SKU, reserved[l.SKU]))
			}
		}
	}
	return found
}

// events compares the states with the events that were published about the order: each effect was
// published once.
func (a audited) events() (found []string) {
	if a.published == nil {
		return nil
	}
	must, may := a.mustPublish()
	for _, eventType := range fulfilment.Topology().Types() {
		n := a.published[eventType]
		switch {
		case n > 1:
			found = append(found, fmt.Sprintf("%s was published %d times", eventType, n))
		case eventType == "order.placed": // a test event is in no history
		case must[eventType] && n == 0:
			found = append(found, eventType+" was never published, although the state says so")
		case !must[eventType] && !may[eventType] && n == 1:
			found = append(found, eventType+" was published, and the state does not say so")
		}
	}
	return found
}

// mustPublish returns the types whose events belong to the states of an order, and those that may
// have come before: a charge or a booking that was still under way at the cancellation is undone
// without ever having been published.
func (a audited) mustPublish() (must, may map[string]bool) {
	must = map[string]bool{
		"order.confirmed":    a.order.State == orders.Confirmed,
		"order.cancelled":    a.order.State == orders.Cancelled,
		"payment.declined":   a.payment.State == payments.Declined,
		"payment.captured":   a.payment.State == payments.Captured,
		"payment.refunded":   a.payment.State == payments.Refunded,
		"stock.rejected":     a.reservation.State == inventory.Rejected,
		"stock.released":     a.reservation.State == inventory.Released,
		"stock.reserved":     a.reservation.State == inventory.Committed,
		"shipment.failed":    a.shipment.State == shipping.Failed,
		"shipment.cancelled": a.shipment.State == shipping.Cancelled,
		"shipment.scheduled": a.shipment.State == shipping.Scheduled,
	}
	may = map[string]bool{
		"payment.captured": a.payment.State == payments.Refunded ||
			a.payment.State == payments.RefundRefused,
		"stock.reserved": a.reservation.State == inventory.Released,
		"shipment.scheduled": a.shipment.State == shipping.Cancelled ||
			a.shipment.State == shipping.RecallRefused,
	}
	return must, may
}

// none returns the name of a state, or that there is none.
func none[S ~string](state S) string {
	if state == "" {
		return "none"
	}
	return string(state)
}
