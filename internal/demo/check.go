package demo

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
)

// Model is a situation to explore: orders for one article, and the initial money and stock.
type Model struct {
	Name       string
	Orders     int   // each for one piece at a price of 100
	Funds      int64 // of the customer
	Stock      int64
	Country    string
	Duplicates int
	// Card and Carrier are set if a card pays and if a carrier is called. Refuses is the call that the
	// outside world refuses, or empty.
	Card    bool
	Carrier bool
	Refuses string // simulator.Charges, Refunds, Bookings or Recalls
}

// Models returns the situations to explore: one order with every outcome, and two orders that
// compete for the last piece or for the money.
func Models() []Model {
	return []Model{
		{Name: "one order", Orders: 1, Funds: 1000, Stock: 5, Country: "DE", Duplicates: 2},
		{Name: "no funds", Orders: 1, Funds: 99, Stock: 5, Country: "DE", Duplicates: 2},
		{Name: "no stock", Orders: 1, Funds: 1000, Stock: 0, Country: "DE", Duplicates: 2},
		{Name: "country not served", Orders: 1, Funds: 1000, Stock: 5, Country: "AQ", Duplicates: 2},
		{Name: "two orders, one piece", Orders: 2, Funds: 1000, Stock: 1, Country: "DE"},
		{Name: "a card and a carrier", Orders: 1, Stock: 5, Country: "DE", Card: true, Carrier: true},
		{Name: "a card, duplicates", Orders: 1, Stock: 5, Country: "DE", Card: true, Duplicates: 1},
		{Name: "a carrier, duplicates", Orders: 1, Funds: 1000, Stock: 5, Country: "DE", Carrier: true,
			Duplicates: 1},
		{Name: "the charge is refused", Orders: 1, Stock: 5, Country: "DE", Card: true, Carrier: true,
			Refuses: simulator.Charges},
		{Name: "a card, no stock, the refund is refused", Orders: 1, Country: "DE", Card: true,
			Carrier: true, Refuses: simulator.Refunds},
		{Name: "the booking is refused", Orders: 1, Stock: 5, Country: "DE", Card: true, Carrier: true,
			Refuses: simulator.Bookings},
		{Name: "the recall is refused", Orders: 1, Stock: 5, Country: "DE", Card: true, Carrier: true,
			Refuses: simulator.Recalls},
		{Name: "two orders, money for one", Orders: 2, Funds: 100, Stock: 5, Country: "DE"},
	}
}

const (
	customer = "ada"
	sku      = "teapot"
	price    = 100
)

func orderID(i int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", i+1) }

// Explore explores one situation.
func Explore(m Model) (check.Report, error) {
	pay, stock := consumer.Memory{}, consumer.Memory{}
	err := pay.Put("account", customer, payments.Account{Customer: customer, Currency: "EUR",
		Deposited: m.Funds, Balance: m.Funds})
	if err == nil && m.Stock > 0 {
		err = stock.Put("stock", sku, inventory.Stock{SKU: sku, Received: m.Stock, OnHand: m.Stock})
	}
	if err != nil {
		return check.Report{}, err
	}
	var commands []check.Command
	for i := range m.Orders {
		placed := fulfilment.OrderPlaced{
			OrderID: orderID(i), Customer: customer, Currency: "EUR",
			Lines: []fulfilment.Line{{SKU: sku, Quantity: 1, UnitPrice: price}},
			Address: fulfilment.Address{Name: "Ada", Street: "1", City: "X", PostalCode: "1",
				Country: m.Country},
		}
		if m.Card {
			placed.Card = "tok_visa"
		}
		commands = append(commands,
			check.Command{To: "orders", Payload: orders.Place{OrderPlaced: placed, Within: time.Minute}},
			check.Command{To: "orders", Payload: orders.Cancel{OrderID: orderID(i)}, Optional: true})
	}
	return check.Explore(check.Model{
		Topology: fulfilment.Topology(), Reactors: m.reactors(), Duplicates: m.Duplicates,
		Outside:  m.outside(),
		Commands: commands,
		Begin:    map[string]consumer.Memory{"payments": pay, "inventory": stock},
		Always:   m.always, AtRest: m.atRest, Outcome: m.outcome,
	})
}

// orderStates are the states of one order in the four services and at the outside peers.
type orderStates struct {
	charges     journal // of the payment provider
	bookings    journal // of the carrier
	order       orders.Order
	payment     payments.Payment
	reservation inventory.Reservation
	shipment    shipping.Shipment
}

func statesOf(w check.System, i int) orderStates {
	var f orderStates
	w.Row("payments", outsideTable, orderID(i), &f.charges)
	w.Row("shipping", outsideTable, orderID(i), &f.bookings)
	w.Row("orders", "orders", orderID(i), &f.order)
	w.Row("payments", "payments", orderID(i), &f.payment)
	w.Row("inventory", "reservations", orderID(i), &f.reservation)
	w.Row("shipping", "shipments", orderID(i), &f.shipment)
	return f
}

// always checks the invariants of every state: money and stock are conserved and never negative.
func (m Model) always(w check.System) error {
	var account payments.Account
	w.Row("payments", "account", customer, &account)
	var stock inventory.Stock
	w.Row("inventory", "stock", sku, &stock)
	paid, reserved, committed := int64(0), int64(0), int64(0)
	for i := range m.Orders {
		f := statesOf(w, i)
		if f.payment.State == payments.Captured && !m.Card {
			paid += f.payment.Amount
		}
		switch f.reservation.State {
		case inventory.Reserved:
			reserved++
		case inventory.Committed:
			committed++
		}
	}
	if account.Balance < 0 || account.Balance+paid != m.Funds {
		return fmt.Errorf("money: balance %d and %d captured of %d", account.Balance, paid, m.Funds)
	}
	if stock.OnHand < 0 || stock.OnHand+stock.Reserved+stock.Committed != m.Stock ||
		stock.Reserved != reserved || stock.Committed != committed {
		return fmt.Errorf("stock: %+v of %d, with %d reserved and %d committed", stock, m.Stock, reserved,
			committed)
	}
	return nil
}

// atRest checks the invariants of a state in which nothing more happens: every order is confirmed
// or cancelled, and all four services agree.
func (m Model) atRest(w check.System) error {
	for i := range m.Orders {
		f := statesOf(w, i)
		confirmed := f.order.State == orders.Confirmed && f.payment.State == payments.Captured &&
			f.reservation.State == inventory.Committed && f.shipment.State == shipping.Scheduled
		if err := m.checkJournals(f, confirmed); err != nil {
			return fmt.Errorf("order %d: %w: %s", i+1, err, f)
		}
		cancelled := f.order.State == orders.Cancelled && m.undone(f) &&
			f.reservation.State != inventory.Reserved && f.reservation.State != inventory.Committed
		if confirmed == cancelled {
			return fmt.Errorf("order %d: %s", i+1, f)
		}
	}
	return nil
}

func (m Model) outcome(w check.System) string {
	var each []string
	for i := range m.Orders {
		each = append(each, statesOf(w, i).String())
	}
	return strings.Join(each, " | ")
}

func (f orderStates) String() string {
	return fmt.Sprintf("order %s, payment %s, stock %s, shipment %s",
		cmp.Or(f.order.State, "none"), cmp.Or(f.payment.State, "none"),
		cmp.Or(f.reservation.State, "none"), cmp.Or(f.shipment.State, "none"))
}
