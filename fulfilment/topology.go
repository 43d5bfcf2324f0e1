package fulfilment

import (
	"time"

	"github.com/quadrille-go/quadrille/topology"
)

// OrderDeadline is by when an order must be confirmed, unless the service is configured otherwise.
const OrderDeadline = 15 * time.Minute

// Topology is the choreography of orders, payments, inventory and shipping.
func Topology() topology.Topology {
	return topology.Topology{
		Name:     "fulfilment",
		Schema:   "urn:quadrille:",
		Services: []topology.Service{orders(), payments(), inventory(), shipping()},
	}
}

// Accepted returns the findings of the command topology lint that are meant so, with the reasons.
func Accepted() map[string]string {
	const fact = "a fact at the end of a compensation, for traces and reports"
	return map[string]string{
		"event-unhandled payment.refunded":   fact,
		"event-unhandled shipment.cancelled": fact,
		"event-unhandled stock.released":     fact,
	}
}

func orders() topology.Service {
	cancelled := []string{"order.cancelled"}
	return topology.Service{
		Name: "orders",
		Commands: []topology.Command{
			{Does: "place", Type: "orders.place", Publishes: []string{"order.placed"}},
			{Does: "cancel", Type: "orders.cancel", Publishes: cancelled, Undoes: "place"},
			{Does: "expire", Type: "orders.expire", Publishes: cancelled, Undoes: "place",
				After: OrderDeadline},
		},
		Reacts: []topology.Reaction{
			{Handles: "payment.declined", Does: "cancel", Publishes: cancelled, Undoes: "place"},
			{Handles: "stock.rejected", Does: "cancel", Publishes: cancelled, Undoes: "place"},
			{Handles: "shipment.failed", Does: "cancel", Publishes: cancelled, Undoes: "place"},
			{Handles: "shipment.scheduled", Does: "confirm", Publishes: []string{"order.confirmed"}},
		},
	}
}

func payments() topology.Service {
	refunded, refund := []string{"payment.refunded"}, []string{"payments.refund"}
	return topology.Service{
		Name: "payments",
		Commands: []topology.Command{
			{Does: "capture the charge", Type: "payments.charge_succeeded",
				Publishes: []string{"payment.captured"}, Requests: refund},
			{Does: "decline", Type: "payments.charge_declined", Publishes: []string{"payment.declined"}},
			{Does: "close the refund", Type: "payments.refund_succeeded", Publishes: refunded},
			{Does: "leave the refund to a person", Type: "payments.refund_refused"},
			{Does: "refund again", Type: "payments.refund_again", Requests: refund},
		},
		Reacts: []topology.Reaction{
			{Handles: "order.placed", Does: "capture",
				Publishes: []string{"payment.captured", "payment.declined"},
				Requests:  []string{"payments.charge"}},
			{Handles: "stock.rejected", Does: "refund", Publishes: refunded, Requests: refund,
				Undoes: "capture"},
			{Handles: "shipment.failed", Does: "refund", Publishes: refunded, Requests: refund,
				Undoes: "capture"},
			{Handles: "order.cancelled", Does: "refund", Publishes: refunded, Requests: refund,
				Undoes: "capture"},
		},
		Calls: []topology.Call{
			{Type: "payments.charge", Does: "charge the card",
				Answers: []string{"payments.charge_succeeded", "payments.charge_declined"}},
			{Type: "payments.refund", Does: "refund the card", Undoes: "charge the card",
				Answers: []string{"payments.refund_succeeded", "payments.refund_refused"}},
		},
	}
}

func inventory() topology.Service {
	decided, released := []string{"stock.reserved", "stock.rejected"}, []string{"stock.released"}
	return topology.Service{
		Name: "inventory",
		Reacts: []topology.Reaction{
			{Handles: "order.placed", Does: "remember the lines", Publishes: decided},
			{Handles: "payment.captured", Does: "reserve", Publishes: decided},
			{Handles: "shipment.failed", Does: "release", Publishes: released, Undoes: "reserve"},
			{Handles: "order.cancelled", Does: "release", Publishes: released, Undoes: "reserve"},
			{Handles: "order.confirmed", Does: "commit"},
		},
	}
}

func shipping() topology.Service {
	decided := []string{"shipment.scheduled", "shipment.failed"}
	cancelled, recall := []string{"shipment.cancelled"}, []string{"shipping.recall"}
	book := []string{"shipping.book"}
	return topology.Service{
		Name: "shipping",
		Commands: []topology.Command{
			{Does: "schedule the booking", Type: "shipping.booking_confirmed",
				Publishes: []string{"shipment.scheduled"}, Requests: recall},
			{Does: "fail", Type: "shipping.booking_refused", Publishes: []string{"shipment.failed"}},
			{Does: "close the recall", Type: "shipping.recall_succeeded", Publishes: cancelled},
			{Does: "leave the recall to a person", Type: "shipping.recall_refused"},
			{Does: "recall again", Type: "shipping.recall_again", Requests: recall},
		},
		Reacts: []topology.Reaction{
			{Handles: "order.placed", Does: "remember the address", Publishes: decided, Requests: book},
			{Handles: "stock.reserved", Does: "schedule", Publishes: decided, Requests: book},
			{Handles: "order.cancelled", Does: "cancel", Publishes: cancelled, Requests: recall,
				Undoes: "schedule"},
		},
		Calls: []topology.Call{
			{Type: "shipping.book", Does: "book with the carrier",
				Answers: []string{"shipping.booking_confirmed", "shipping.booking_refused"}},
			{Type: "shipping.recall", Does: "recall from the carrier", Undoes: "book with the carrier",
				Answers: []string{"shipping.recall_succeeded", "shipping.recall_refused"}},
		},
	}
}
