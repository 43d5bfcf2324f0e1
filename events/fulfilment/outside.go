package fulfilment

import (
	"errors"
	"regexp"
	"unicode"
)

// What payments and shipping say to themselves about the outside world. A request is answered by an
// outside call whose idempotency key is the id of the event that asks for it.

// ChargeRequested asks the payment provider for the amount, from a card.
type ChargeRequested struct {
	OrderID  string `json:"order_id"`
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"` // minor units
	Currency string `json:"currency"`
	Card     string `json:"card"`
}

// ChargeSucceeded says that the provider has taken the amount.
type ChargeSucceeded struct {
	OrderID string `json:"order_id"`
}

// ChargeDeclined says that the provider refuses, and has taken nothing.
type ChargeDeclined struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// RefundRequested asks the provider to give a charge back.
type RefundRequested struct {
	OrderID  string `json:"order_id"`
	Amount   int64  `json:"amount"` // minor units
	Currency string `json:"currency"`
}

// RefundSucceeded says that the provider has given the amount back.
type RefundSucceeded struct {
	OrderID string `json:"order_id"`
}

// RefundRefused says that the provider will not: a person has to see to it.
type RefundRefused struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// BookingRequested asks the carrier to take the parcel.
type BookingRequested struct {
	OrderID string  `json:"order_id"`
	Address Address `json:"address"`
}

// BookingConfirmed says that the carrier will.
type BookingConfirmed struct {
	OrderID string `json:"order_id"`
}

// BookingRefused says that the carrier will not.
type BookingRefused struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// RecallRequested asks the carrier not to take a parcel that is booked.
type RecallRequested struct {
	OrderID string `json:"order_id"`
}

// RecallSucceeded says that the parcel will not go.
type RecallSucceeded struct {
	OrderID string `json:"order_id"`
}

// RecallRefused says that it will: a person has to see to it.
type RecallRefused struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

func (ChargeRequested) EventType() string  { return "charge.requested" }
func (ChargeSucceeded) EventType() string  { return "charge.succeeded" }
func (ChargeDeclined) EventType() string   { return "charge.declined" }
func (RefundRequested) EventType() string  { return "refund.requested" }
func (RefundSucceeded) EventType() string  { return "refund.succeeded" }
func (RefundRefused) EventType() string    { return "refund.refused" }
func (BookingRequested) EventType() string { return "booking.requested" }
func (BookingConfirmed) EventType() string { return "booking.confirmed" }
func (BookingRefused) EventType() string   { return "booking.refused" }
func (RecallRequested) EventType() string  { return "recall.requested" }
func (RecallSucceeded) EventType() string  { return "recall.succeeded" }
func (RecallRefused) EventType() string    { return "recall.refused" }

func (p BookingRequested) Subject() string { return p.OrderID }
func (p BookingConfirmed) Subject() string { return p.OrderID }
func (p BookingRefused) Subject() string   { return p.OrderID }
func (p RecallRequested) Subject() string  { return p.OrderID }
func (p RecallSucceeded) Subject() string  { return p.OrderID }
func (p RecallRefused) Subject() string    { return p.OrderID }
func (p ChargeRequested) Subject() string  { return p.OrderID }
func (p ChargeSucceeded) Subject() string  { return p.OrderID }
func (p ChargeDeclined) Subject() string   { return p.OrderID }
func (p RefundRequested) Subject() string  { return p.OrderID }
func (p RefundSucceeded) Subject() string  { return p.OrderID }
func (p RefundRefused) Subject() string    { return p.OrderID }

// ReasonNoCards is given where no payment provider is configured.
const ReasonNoCards = "cards are not accepted"

var (
	cardPattern   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	letterPattern = regexp.MustCompile(`[A-Za-z_]`)
)

// CheckCard refuses what is no token of the payment provider. A card's number must never come here:
// a token has a letter or an underscore in it.
func CheckCard(card string) error {
	if !cardPattern.MatchString(card) || !letterPattern.MatchString(card) {
		return errors.New("card: must be a token of the payment provider, 1 to 64 characters of A-Z " +
			"a-z 0-9 _ - and not only digits")
	}
	return nil
}

func (p ChargeRequested) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), CheckName("customer", p.Customer),
		CheckAmount(p.Amount, p.Currency), CheckCard(p.Card))
}
func (p ChargeSucceeded) Validate() error { return CheckOrderID(p.OrderID) }
func (p ChargeDeclined) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}
func (p RefundRequested) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), CheckAmount(p.Amount, p.Currency))
}
func (p RefundSucceeded) Validate() error { return CheckOrderID(p.OrderID) }
func (p RefundRefused) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}
func (p BookingRequested) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), p.Address.validate())
}
func (p BookingConfirmed) Validate() error { return CheckOrderID(p.OrderID) }
func (p BookingRefused) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}
func (p RecallRequested) Validate() error { return CheckOrderID(p.OrderID) }
func (p RecallSucceeded) Validate() error { return CheckOrderID(p.OrderID) }
func (p RecallRefused) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}

// ShortReason makes a reason of what an outside world says, which may be anything.
func ShortReason(published string) string {
	clean := make([]rune, 0, MaxText)
	for _, r := range published {
		if len(clean) < MaxText && !unicode.IsControl(r) {
			clean = append(clean, r)
		}
	}
	if len(clean) == 0 {
		return "no reason given"
	}
	return string(clean)
}
