// Package inventory keeps the stock: it reserves an order's lines once it is paid, releases them
// when the order does not come to be, and commits them when it does.
//
// It promises that stock is never oversold, that an order is reserved wholly or not at all, at most
// once, and that on_hand + reserved + committed is what was received, always.
package inventory

import (
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/postgres"
)

// ReservationState is how far one reservation is.
type ReservationState string

// The states of a reservation. Waiting lacks the lines, the payment or both; Void is a tombstone:
// a compensation that came before its action.
const (
	Waiting   ReservationState = "waiting"
	Reserved  ReservationState = "reserved"
	Rejected  ReservationState = "rejected"
	Released  ReservationState = "released"
	Committed ReservationState = "committed"
	Void      ReservationState = "void"
)

// Line is a quantity of one article; a reservation names each article once.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// Reservation is what became of one order's lines.
type Reservation struct {
	OrderID   string           `db:"order_id"`
	State     ReservationState `db:"state"`
	Paid      bool             `db:"paid"`      // payment.captured has come
	Confirmed bool             `db:"confirmed"` // order.confirmed has come
	// sorted by article; empty until order.placed comes
	Lines     postgres.JSON[[]Line] `db:"lines"`
	Reason    string                `db:"reason"`
	UpdatedAt time.Time             `db:"updated_at"`
}

// Stock is how much there is of an article.
type Stock struct {
	SKU       string `db:"sku" json:"sku"`
	Received  int64  `db:"received" json:"received"`
	OnHand    int64  `db:"on_hand" json:"on_hand"` // free
	Reserved  int64  `db:"reserved" json:"reserved"`
	Committed int64  `db:"committed" json:"committed"`
}

// State is the working set; the order of the fields is the lock order.
type State struct {
	Reservations consumer.Rows[string, Reservation] `table:"reservations" key:"order_id"`
	Stock        consumer.Rows[string, Stock]       `table:"stock" key:"sku"`
}
