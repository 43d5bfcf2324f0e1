package topology

import "time"

// OrderDeadline is by when an order must be confirmed, unless the service is told otherwise.
const OrderDeadline = 15 * time.Minute

// Fulfilment is the choreography of orders, payments, inventory and shipping.
func Fulfilment() Topology {
	return Topology{
		Name:     "fulfilment",
		Services: []Service{orders(), payments(), inventory(), shipping()},
	}
}

func orders() Service {
	return Service{
		Name: "orders",
		Commands: []Command{
			{Does: "place", Type: "orders.place", Publishes: []string{"order.placed"}},
			{Does: "cancel", Type: "orders.cancel", Publishes: []string{"order.cancelled"},
				Undoes: "place"},
			{Does: "expire", Type: "orders.expire", Publishes: []string{"order.cancelled"},
				After: OrderDeadline, Undoes: "place"},
		},
		Reacts: []Reaction{
			{Handles: "payment.declined", Does: "cancel", Publishes: []string{"order.cancelled"},
				Undoes: "place"},
			{Handles: "stock.rejected", Does: "cancel", Publishes: []string{"order.cancelled"},
				Undoes: "place"},
			{Handles: "shipment.failed", Does: "cancel", Publishes: []string{"order.cancelled"},
				Undoes: "place"},
			{Handles: "shipment.scheduled", Does: "confirm", Publishes: []string{"order.confirmed"}},
		},
	}
}

func payments() Service {
	return Service{
		Name: "payments",
		Commands: []Command{{Does: "refund again", Type: "payments.refund_again",
			Publishes: []string{"refund.requested"}}},
		Reacts: []Reaction{
			{Handles: "order.placed", Does: "capture", Publishes: []string{"payment.captured",
				"payment.declined", "charge.requested"}},
			{Handles: "stock.rejected", Does: "refund", Publishes: []string{"payment.refunded",
				"refund.requested"}, Undoes: "capture"},
			{Handles: "shipment.failed", Does: "refund", Publishes: []string{"payment.refunded",
				"refund.requested"}, Undoes: "capture"},
			{Handles: "order.cancelled", Does: "refund", Publishes: []string{"payment.refunded",
				"refund.requested"}, Undoes: "capture"},
			// The outside world, asked by calls; payments answers itself.
			{Handles: "charge.requested", Does: "call the provider", Publishes: []string{"charge.succeeded",
				"charge.declined"}},
			{Handles: "charge.succeeded", Does: "capture the charge",
				Publishes: []string{"payment.captured", "refund.requested"}},
			{Handles: "charge.declined", Does: "decline", Publishes: []string{"payment.declined"}},
			{Handles: "refund.requested", Does: "call the provider back",
				Publishes: []string{"refund.succeeded", "refund.refused"}, Undoes: "call the provider"},
			{Handles: "refund.succeeded", Does: "close the refund",
				Publishes: []string{"payment.refunded"}},
			{Handles: "refund.refused", Does: "call a person"},
		},
	}
}

func inventory() Service {
	return Service{
		Name: "inventory",
		Reacts: []Reaction{
			{Handles: "order.placed", Does: "remember the lines", Publishes: []string{"stock.reserved",
				"stock.rejected"}},
			{Handles: "payment.captured", Does: "reserve", Publishes: []string{"stock.reserved",
				"stock.rejected"}},
			{Handles: "shipment.failed", Does: "release", Publishes: []string{"stock.released"},
				Undoes: "reserve"},
			{Handles: "order.cancelled", Does: "release", Publishes: []string{"stock.released"},
				Undoes: "reserve"},
			{Handles: "order.confirmed", Does: "commit"},
		},
	}
}

func shipping() Service {
	return Service{
		Name: "shipping",
		Commands: []Command{{Does: "recall again", Type: "shipping.recall_again",
			Publishes: []string{"recall.requested"}}},
		Reacts: []Reaction{
			{Handles: "order.placed", Does: "remember the address",
				Publishes: []string{"shipment.scheduled", "shipment.failed", "booking.requested"}},
			{Handles: "stock.reserved", Does: "schedule", Publishes: []string{"shipment.scheduled",
				"shipment.failed", "booking.requested"}},
			{Handles: "order.cancelled", Does: "cancel", Publishes: []string{"shipment.cancelled",
				"recall.requested"}, Undoes: "schedule"},
			// The outside world, asked by calls; shipping answers itself.
			{Handles: "booking.requested", Does: "call the carrier",
				Publishes: []string{"booking.confirmed", "booking.refused"}},
			{Handles: "booking.confirmed", Does: "schedule the booking",
				Publishes: []string{"shipment.scheduled", "recall.requested"}},
			{Handles: "booking.refused", Does: "fail", Publishes: []string{"shipment.failed"}},
			{Handles: "recall.requested", Does: "call the carrier back",
				Publishes: []string{"recall.succeeded", "recall.refused"}, Undoes: "call the carrier"},
			{Handles: "recall.succeeded", Does: "close the recall",
				Publishes: []string{"shipment.cancelled"}},
			{Handles: "recall.refused", Does: "call a person"},
		},
	}
}
