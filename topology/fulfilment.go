package topology

import "time"

// OrderDeadline is by when an order must be confirmed, unless the service is told otherwise.
const OrderDeadline = 15 * time.Minute

// Fulfilment is the dance of orders, payments, inventory and shipping.
func Fulfilment() Topology {
	return Topology{Name: "fulfilment", Services: []Service{
		{
			Name: "orders",
			Commands: []Command{
				{Does: "place", Type: "orders.place", Says: []string{"order.placed"}},
				{Does: "cancel", Type: "orders.cancel", Says: []string{"order.cancelled"}, Undoes: "place"},
				{Does: "expire", Type: "orders.expire", Says: []string{"order.cancelled"}, After: OrderDeadline, Undoes: "place"},
			},
			Reacts: []Reaction{
				{Hears: "payment.declined", Does: "cancel", Says: []string{"order.cancelled"}, Undoes: "place"},
				{Hears: "stock.rejected", Does: "cancel", Says: []string{"order.cancelled"}, Undoes: "place"},
				{Hears: "shipment.failed", Does: "cancel", Says: []string{"order.cancelled"}, Undoes: "place"},
				{Hears: "shipment.scheduled", Does: "confirm", Says: []string{"order.confirmed"}},
			},
		},
		{
			Name:     "payments",
			Commands: []Command{{Does: "refund again", Type: "payments.refund_again", Says: []string{"refund.requested"}}},
			Reacts: []Reaction{
				{Hears: "order.placed", Does: "capture", Says: []string{"payment.captured", "payment.declined", "charge.requested"}},
				{Hears: "stock.rejected", Does: "refund", Says: []string{"payment.refunded", "refund.requested"}, Undoes: "capture"},
				{Hears: "shipment.failed", Does: "refund", Says: []string{"payment.refunded", "refund.requested"}, Undoes: "capture"},
				{Hears: "order.cancelled", Does: "refund", Says: []string{"payment.refunded", "refund.requested"}, Undoes: "capture"},
				// The outside world, asked by calls; payments answers itself.
				{Hears: "charge.requested", Does: "call the provider", Says: []string{"charge.succeeded", "charge.declined"}},
				{Hears: "charge.succeeded", Does: "capture the charge", Says: []string{"payment.captured", "refund.requested"}},
				{Hears: "charge.declined", Does: "decline", Says: []string{"payment.declined"}},
				{Hears: "refund.requested", Does: "call the provider back", Says: []string{"refund.succeeded", "refund.refused"}, Undoes: "call the provider"},
				{Hears: "refund.succeeded", Does: "close the refund", Says: []string{"payment.refunded"}},
				{Hears: "refund.refused", Does: "call a person"},
			},
		},
		{
			Name: "inventory",
			Reacts: []Reaction{
				{Hears: "order.placed", Does: "remember the lines", Says: []string{"stock.reserved", "stock.rejected"}},
				{Hears: "payment.captured", Does: "reserve", Says: []string{"stock.reserved", "stock.rejected"}},
				{Hears: "shipment.failed", Does: "release", Says: []string{"stock.released"}, Undoes: "reserve"},
				{Hears: "order.cancelled", Does: "release", Says: []string{"stock.released"}, Undoes: "reserve"},
				{Hears: "order.confirmed", Does: "commit"},
			},
		},
		{
			Name:     "shipping",
			Commands: []Command{{Does: "recall again", Type: "shipping.recall_again", Says: []string{"recall.requested"}}},
			Reacts: []Reaction{
				{Hears: "order.placed", Does: "remember the address", Says: []string{"shipment.scheduled", "shipment.failed", "booking.requested"}},
				{Hears: "stock.reserved", Does: "schedule", Says: []string{"shipment.scheduled", "shipment.failed", "booking.requested"}},
				{Hears: "order.cancelled", Does: "cancel", Says: []string{"shipment.cancelled", "recall.requested"}, Undoes: "schedule"},
				// The outside world, asked by calls; shipping answers itself.
				{Hears: "booking.requested", Does: "call the carrier", Says: []string{"booking.confirmed", "booking.refused"}},
				{Hears: "booking.confirmed", Does: "schedule the booking", Says: []string{"shipment.scheduled", "recall.requested"}},
				{Hears: "booking.refused", Does: "fail", Says: []string{"shipment.failed"}},
				{Hears: "recall.requested", Does: "call the carrier back", Says: []string{"recall.succeeded", "recall.refused"}, Undoes: "call the carrier"},
				{Hears: "recall.succeeded", Does: "close the recall", Says: []string{"shipment.cancelled"}},
				{Hears: "recall.refused", Does: "call a person"},
			},
		},
	}}
}
