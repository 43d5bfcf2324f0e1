package shipping

import "github.com/quadrille-go/quadrille/fulfilment"

// The requests to the carrier and its answers. They are shipping's own: no other service sees them.
type (
	// Book is the request to take the parcel.
	Book struct {
		OrderID string             `json:"order_id"`
		Address fulfilment.Address `json:"address"`
	}
	// BookingConfirmed is the answer that the carrier will.
	BookingConfirmed struct {
		OrderID string `json:"order_id"`
	}
	// BookingRefused is the answer that the carrier will not.
	BookingRefused struct {
		OrderID string `json:"order_id"`
		Reason  string `json:"reason"`
	}
	// Recall is the request not to take a parcel that is booked.
	Recall struct {
		OrderID string `json:"order_id"`
	}
	// RecallSucceeded is the answer that the parcel will not go.
	RecallSucceeded struct {
		OrderID string `json:"order_id"`
	}
	// RecallWasRefused is the answer that it will: a person must resolve it.
	RecallWasRefused struct {
		OrderID string `json:"order_id"`
		Reason  string `json:"reason"`
	}
)

func (Book) EventType() string             { return "shipping.book" }
func (BookingConfirmed) EventType() string { return "shipping.booking_confirmed" }
func (BookingRefused) EventType() string   { return "shipping.booking_refused" }
func (Recall) EventType() string           { return "shipping.recall" }
func (RecallSucceeded) EventType() string  { return "shipping.recall_succeeded" }
func (RecallWasRefused) EventType() string { return "shipping.recall_refused" }

func (p Book) Subject() string             { return p.OrderID }
func (p BookingConfirmed) Subject() string { return p.OrderID }
func (p BookingRefused) Subject() string   { return p.OrderID }
func (p Recall) Subject() string           { return p.OrderID }
func (p RecallSucceeded) Subject() string  { return p.OrderID }
func (p RecallWasRefused) Subject() string { return p.OrderID }
