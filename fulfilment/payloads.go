// Package fulfilment is the vocabulary of order fulfilment: the payload of every event that orders,
// payments, inventory and shipping publish, and what makes one valid.
//
// It promises that a payload which passes Validate can be handled: ids are canonical, amounts add
// up without overflow, texts are bounded. It decides nothing about the choreography itself.
package fulfilment

import "github.com/quadrille-go/quadrille/events"

// Line is a quantity of one article; UnitPrice is in minor units of the order's currency.
type Line struct {
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	UnitPrice int64  `json:"unit_price"`
}

// Address is where the parcel goes; Country is an ISO 3166-1 alpha-2 code.
type Address struct {
	Name       string `json:"name"`
	Street     string `json:"street"`
	City       string `json:"city"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

// OrderPlaced opens the choreography.
type OrderPlaced struct {
	OrderID  string  `json:"order_id"`
	Customer string  `json:"customer"`
	Currency string  `json:"currency"` // ISO 4217
	Lines    []Line  `json:"lines"`
	Address  Address `json:"address"`
	// a token of the payment provider; empty: the customer's account pays
	Card string `json:"card,omitzero"`
}

// OrderConfirmed ends it well.
type OrderConfirmed struct {
	OrderID string `json:"order_id"`
}

// OrderCancelled ends an order that is not confirmed; each service undoes what it did.
type OrderCancelled struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// PaymentCaptured means that the amount was taken from the customer's account or card.
type PaymentCaptured struct {
	OrderID  string `json:"order_id"`
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"` // minor units
	Currency string `json:"currency"`
}

// PaymentDeclined is a refusal: no funds, no account, another currency.
type PaymentDeclined struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// PaymentRefunded means that the captured amount was given back.
type PaymentRefunded struct {
	OrderID  string `json:"order_id"`
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"` // minor units
	Currency string `json:"currency"`
}

// StockReserved means that every line is reserved.
type StockReserved struct {
	OrderID string `json:"order_id"`
}

// StockRejected is a refusal: at least one line is not in stock, so none is reserved.
type StockRejected struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// StockReleased means that the reserved pieces are free again.
type StockReleased struct {
	OrderID string `json:"order_id"`
}

// ShipmentScheduled means that the parcel will be sent.
type ShipmentScheduled struct {
	OrderID string `json:"order_id"`
	Country string `json:"country"`
}

// ShipmentFailed is a refusal of the carrier.
type ShipmentFailed struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// ShipmentCancelled means that the scheduled parcel will not be sent.
type ShipmentCancelled struct {
	OrderID string `json:"order_id"`
}

// The names on the wire, which are the routing keys.
func (OrderPlaced) EventType() string       { return "order.placed" }
func (OrderConfirmed) EventType() string    { return "order.confirmed" }
func (OrderCancelled) EventType() string    { return "order.cancelled" }
func (PaymentCaptured) EventType() string   { return "payment.captured" }
func (PaymentDeclined) EventType() string   { return "payment.declined" }
func (PaymentRefunded) EventType() string   { return "payment.refunded" }
func (StockReserved) EventType() string     { return "stock.reserved" }
func (StockRejected) EventType() string     { return "stock.rejected" }
func (StockReleased) EventType() string     { return "stock.released" }
func (ShipmentScheduled) EventType() string { return "shipment.scheduled" }
func (ShipmentFailed) EventType() string    { return "shipment.failed" }
func (ShipmentCancelled) EventType() string { return "shipment.cancelled" }

// The subject of every event of the choreography is its order.
func (p OrderPlaced) Subject() string       { return p.OrderID }
func (p OrderConfirmed) Subject() string    { return p.OrderID }
func (p OrderCancelled) Subject() string    { return p.OrderID }
func (p PaymentCaptured) Subject() string   { return p.OrderID }
func (p PaymentDeclined) Subject() string   { return p.OrderID }
func (p PaymentRefunded) Subject() string   { return p.OrderID }
func (p StockReserved) Subject() string     { return p.OrderID }
func (p StockRejected) Subject() string     { return p.OrderID }
func (p StockReleased) Subject() string     { return p.OrderID }
func (p ShipmentScheduled) Subject() string { return p.OrderID }
func (p ShipmentFailed) Subject() string    { return p.OrderID }
func (p ShipmentCancelled) Subject() string { return p.OrderID }

// Samples returns one valid payload of every type, all about the given order.
func Samples(orderID string) []events.Payload {
	lines := []Line{{SKU: "teapot", Quantity: 1, UnitPrice: 2500},
		{SKU: "cup", Quantity: 4, UnitPrice: 700}}
	address := Address{Name: "Ada Lovelace", Street: "12 St James's Square", City: "London",
		PostalCode: "SW1Y 4JH", Country: "GB"}
	return []events.Payload{
		OrderPlaced{OrderID: orderID, Customer: "ada", Currency: "EUR", Lines: lines, Address: address},
		OrderConfirmed{OrderID: orderID},
		OrderCancelled{OrderID: orderID, Reason: ReasonCustomer},
		PaymentCaptured{OrderID: orderID, Customer: "ada", Amount: 5300, Currency: "EUR"},
		PaymentDeclined{OrderID: orderID, Reason: ReasonNoFunds},
		PaymentRefunded{OrderID: orderID, Customer: "ada", Amount: 5300, Currency: "EUR"},
		StockReserved{OrderID: orderID},
		StockRejected{OrderID: orderID, Reason: ReasonOutOfStock},
		StockReleased{OrderID: orderID},
		ShipmentScheduled{OrderID: orderID, Country: "GB"},
		ShipmentFailed{OrderID: orderID, Reason: ReasonNotServed},
		ShipmentCancelled{OrderID: orderID},
	}
}

// Catalogue returns the catalogue of the choreography.
func Catalogue() events.Catalogue { return events.NewCatalogue(Samples(sampleOrder)...) }

const sampleOrder = "0190a0e0-0000-7000-8000-000000000001"

// The reasons that the choreography itself gives.
const (
	ReasonCustomer   = "cancelled by the customer"
	ReasonDeadline   = "not confirmed in time"
	ReasonNoAccount  = "no such account"
	ReasonNoFunds    = "insufficient funds"
	ReasonCurrency   = "account is in another currency"
	ReasonClosed     = "account is closed"
	ReasonOutOfStock = "out of stock"
	ReasonNotServed  = "country is not served"
)
