package payments

import (
	"errors"

	"github.com/quadrille-go/quadrille/fulfilment"
)

// The requests to the payment provider and its answers. They are payments' own: no other service
// sees them.
type (
	// Charge is the request to take the amount from a card.
	Charge struct {
		OrderID  string `json:"order_id"`
		Customer string `json:"customer"`
		Amount   int64  `json:"amount"` // minor units
		Currency string `json:"currency"`
		Card     string `json:"card"`
	}
	// ChargeSucceeded is the answer that the provider has taken the amount.
	ChargeSucceeded struct {
		OrderID string `json:"order_id"`
	}
	// ChargeDeclined is the answer that the provider refuses, and has taken nothing.
	ChargeDeclined struct {
		OrderID string `json:"order_id"`
		Reason  string `json:"reason"`
	}
	// Refund is the request to give a charge back.
	Refund struct {
		OrderID  string `json:"order_id"`
		Amount   int64  `json:"amount"` // minor units
		Currency string `json:"currency"`
	}
	// RefundSucceeded is the answer that the provider has given the amount back.
	RefundSucceeded struct {
		OrderID string `json:"order_id"`
	}
	// RefundWasRefused is the answer that the provider will not: a person must resolve it.
	RefundWasRefused struct {
		OrderID string `json:"order_id"`
		Reason  string `json:"reason"`
	}
)

func (Charge) EventType() string           { return "payments.charge" }
func (ChargeSucceeded) EventType() string  { return "payments.charge_succeeded" }
func (ChargeDeclined) EventType() string   { return "payments.charge_declined" }
func (Refund) EventType() string           { return "payments.refund" }
func (RefundSucceeded) EventType() string  { return "payments.refund_succeeded" }
func (RefundWasRefused) EventType() string { return "payments.refund_refused" }

func (p Charge) Subject() string           { return p.OrderID }
func (p ChargeSucceeded) Subject() string  { return p.OrderID }
func (p ChargeDeclined) Subject() string   { return p.OrderID }
func (p Refund) Subject() string           { return p.OrderID }
func (p RefundSucceeded) Subject() string  { return p.OrderID }
func (p RefundWasRefused) Subject() string { return p.OrderID }

// Validate refuses what must not be sent to the provider.
func (p Charge) Validate() error {
	return errors.Join(fulfilment.CheckOrderID(p.OrderID),
		fulfilment.CheckName("customer", p.Customer), fulfilment.CheckAmount(p.Amount, p.Currency),
		fulfilment.CheckCard(p.Card))
}

// Validate refuses what must not be sent to the provider.
func (p Refund) Validate() error {
	return errors.Join(fulfilment.CheckOrderID(p.OrderID),
		fulfilment.CheckAmount(p.Amount, p.Currency))
}
