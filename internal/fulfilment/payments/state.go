// Package payments takes the money: it captures an order's amount from the customer's account and
// gives it back when the order does not come to be.
//
// It promises that an order is charged at most once and, in the end, exactly when it is confirmed,
// in any order and however often the events come; a balance is never negative.
package payments

import (
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/eventstore"
)

// PaymentState is how far one payment is.
type PaymentState string

// The states of a payment. Void is a tombstone: a compensation that came before its action. Those
// of a card have the outside world in between: Unwanted is a charge under way for an order that is
// cancelled, and RefundRefused needs a person.
const (
	Captured      PaymentState = "captured"
	Declined      PaymentState = "declined"
	Refunded      PaymentState = "refunded"
	Void          PaymentState = "void"
	Charging      PaymentState = "charging"
	Unwanted      PaymentState = "unwanted"
	Refunding     PaymentState = "refunding"
	RefundRefused PaymentState = "refund_refused"
)

// Payment is what became of one order's payment.
type Payment struct {
	OrderID   string       `db:"order_id" json:"order_id"`
	State     PaymentState `db:"state" json:"state"`
	Customer  string       `db:"customer" json:"customer"`
	Currency  string       `db:"currency" json:"currency"`
	Amount    int64        `db:"amount" json:"amount"`      // minor units
	Card      string       `db:"card" json:"card,omitzero"` // empty: the customer's account pays
	Reason    string       `db:"reason" json:"reason,omitzero"`
	UpdatedAt time.Time    `db:"updated_at" json:"updated_at"`
}

// State is the working set; the order of the fields is the lock order.
type State struct {
	Payments consumer.Rows[string, Payment] `table:"payments" key:"order_id"`
	Accounts eventstore.Streams[Account]    `table:"account" key:"customer"`
}
