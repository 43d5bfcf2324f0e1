// Package shipping sends the parcels: it schedules an order's shipment once its stock is reserved,
// and cancels it when the order is cancelled.
//
// It promises that an order has at most one live shipment, in any order and however often the
// events come, and none once it has handled the cancellation.
package shipping

import (
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/postgres"
)

// ShipmentState is how far one shipment is.
type ShipmentState string

// The states of a shipment. Waiting lacks the address, the reservation or both; Void is a
// tombstone: a cancellation that came before its action. With a carrier there are states in
// between: Unwanted is a booking under way for an order that is cancelled, and RecallRefused needs
// a person.
const (
	Waiting       ShipmentState = "waiting"
	Scheduled     ShipmentState = "scheduled"
	Failed        ShipmentState = "failed"
	Cancelled     ShipmentState = "cancelled"
	Void          ShipmentState = "void"
	Booking       ShipmentState = "booking"
	Unwanted      ShipmentState = "unwanted"
	Recalling     ShipmentState = "recalling"
	RecallRefused ShipmentState = "recall_refused"
)

// Shipment is what became of one order's parcel.
type Shipment struct {
	OrderID   string                            `db:"order_id"`
	State     ShipmentState                     `db:"state"`
	Reserved  bool                              `db:"reserved"` // stock.reserved has come
	Address   postgres.JSON[fulfilment.Address] `db:"address"`  // empty until order.placed comes
	Booked    bool                              `db:"booked"`   // with a carrier
	Reason    string                            `db:"reason"`
	UpdatedAt time.Time                         `db:"updated_at"`
}

// State is the working set.
type State struct {
	Shipments consumer.Rows[string, Shipment] `table:"shipments" key:"order_id"`
}
