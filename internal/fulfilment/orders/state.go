// Package orders takes orders and keeps their state: placed, then confirmed or cancelled.
//
// It promises that every order ends in exactly one of the two, by its deadline at the latest, and
// that the order's own row decides between a cancellation and a confirmation that come together. An
// order that it does not know is adopted at the first event about it, so that it ends like any
// other.
package orders

import (
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/postgres"
)

// OrderState is how far one order is.
type OrderState string

// The states of an order.
const (
	Placed    OrderState = "placed"
	Confirmed OrderState = "confirmed"
	Cancelled OrderState = "cancelled"
)

// Order is a row of the table.
type Order struct {
	OrderID   string                            `db:"order_id"`
	State     OrderState                        `db:"state"`
	Reason    string                            `db:"reason"` // of a cancellation
	Customer  string                            `db:"customer"`
	Currency  string                            `db:"currency"`
	Amount    int64                             `db:"amount"` // minor units
	Lines     postgres.JSON[[]fulfilment.Line]  `db:"lines"`
	Address   postgres.JSON[fulfilment.Address] `db:"address"`
	Adopted   bool                              `db:"adopted"`
	PlacedAt  time.Time                         `db:"placed_at"`
	Deadline  time.Time                         `db:"deadline"`
	UpdatedAt time.Time                         `db:"updated_at"`
}

// State is the working set.
type State struct {
	Orders consumer.Rows[string, Order] `table:"orders" key:"order_id"`
}
