package fulfilment_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

const orderID = "0190a0e0-0000-7000-8000-000000000001"

func validate(p events.Payload) error { return p.(interface{ Validate() error }).Validate() }

func placedWith(change func(p *fulfilment.OrderPlaced)) fulfilment.OrderPlaced {
	p := fulfilment.Samples(orderID)[0].(fulfilment.OrderPlaced)
	p.Lines = append([]fulfilment.Line{}, p.Lines...)
	change(&p)
	return p
}

// A reaction may rely on it: an order that passes adds up, to more than nothing.
func TestAnOrderThatPassesAddsUp(t *testing.T) {
	t.Parallel()
	number := rapid.OneOf(rapid.Int64Range(-1, 3), rapid.Int64Range(1, 1_000_000_001),
		rapid.Int64Range(1, math.MaxInt64))
	passed := 0
	rapid.Check(t, func(t *rapid.T) {
		p := placedWith(func(p *fulfilment.OrderPlaced) {
			p.Lines = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) fulfilment.Line {
				return fulfilment.Line{SKU: "a", Quantity: number.Draw(t, "quantity"),
					UnitPrice: number.Draw(t, "price")}
			}), 0, 3).Draw(t, "lines")
		})
		if p.Validate() != nil {
			return
		}
		passed++
		if total, err := fulfilment.Total(p.Lines); err != nil || total < 1 {
			t.Fatalf("%v: %d, %v", p.Lines, total, err)
		}
	})
	if passed == 0 {
		t.Error("no order passed")
	}
}

func TestEverySampleIsValidAndNeedsItsOrder(t *testing.T) {
	t.Parallel()
	if n := len(fulfilment.Samples(orderID)); n != len(fulfilment.Catalogue().Types()) || n != 12 {
		t.Errorf("%d samples", n)
	}
	for _, p := range fulfilment.Samples(orderID) {
		if err := validate(p); err != nil || p.Subject() != orderID {
			t.Errorf("%s: %v", p.EventType(), err)
		}
	}
	for _, bad := range []string{"", "1", strings.ToUpper(orderID), "{" + orderID + "}", orderID + " ",
		strings.ReplaceAll(orderID, "-", ""), "urn:uuid:" + orderID} {
		for _, p := range fulfilment.Samples(bad) {
			if err := validate(p); err == nil || !strings.Contains(err.Error(), "order_id: ") {
				t.Errorf("%s of order %q: %v", p.EventType(), bad, err)
			}
		}
	}
}

func TestEveryFaultOfAnOrderNamesItsField(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", fulfilment.MaxText)
	for field, change := range map[string]func(p *fulfilment.OrderPlaced){
		"lines[1].sku: ": func(
			p *fulfilment.OrderPlaced) {
			p.Lines[1].SKU = strings.Repeat("x", 65)
		},
		"lines[0].quantity: 1000000001": func(
			p *fulfilment.OrderPlaced) {
			p.Lines[0].Quantity = 1_000_000_001
		},
		"lines[1].unit_price: -1 ": func(p *fulfilment.OrderPlaced) { p.Lines[1].UnitPrice = -1 },
		"lines[1]: amount overflows": func(
			p *fulfilment.OrderPlaced) {
			p.Lines[1].UnitPrice = math.MaxInt64
		},
		"address.city: has a control": func(p *fulfilment.OrderPlaced) { p.Address.City = "a\r\nb" },
		"address.postal_code: ":       func(p *fulfilment.OrderPlaced) { p.Address.PostalCode = "" },
	} {
		if err := placedWith(change).Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%q is not in %v", field, err)
		}
	}
	all := placedWith(func(p *fulfilment.OrderPlaced) {
		p.Customer, p.Currency, p.Lines[0].Quantity, p.Address.City = "", "", 0, ""
	}).Validate()
	for _, field := range []string{"customer: ", "currency: ", "lines[0].quantity: ",
		"address.city: "} {
		if !strings.Contains(fmt.Sprint(all), field) {
			t.Errorf("of four faults %q is not told: %v", field, all)
		}
	}
	if err := placedWith(
		func(p *fulfilment.OrderPlaced) { p.Address.Street = long }).Validate(); err != nil {
		t.Errorf("%d characters: %v", fulfilment.MaxText, err)
	}
}

func TestAmountsReasonsAndCountriesAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		payload events.Payload
		field   string
	}{
		{fulfilment.PaymentCaptured{OrderID: orderID, Customer: "ada", Amount: 0, Currency: "EUR"},
			"amount: "},
		{fulfilment.PaymentCaptured{OrderID: orderID, Customer: "", Amount: 1, Currency: "EUR"},
			"customer: "},
		{fulfilment.PaymentRefunded{OrderID: orderID, Customer: "ada", Amount: -1, Currency: "EUR"},
			"amount: "},
		{fulfilment.PaymentRefunded{OrderID: orderID, Customer: "ada", Amount: 1}, "currency: "},
		{fulfilment.PaymentDeclined{OrderID: orderID}, "reason: "},
		{fulfilment.StockRejected{OrderID: orderID, Reason: "a\x00b"}, "reason: "},
		{fulfilment.ShipmentFailed{OrderID: orderID, Reason: strings.Repeat("x", 201)}, "reason: "},
		{fulfilment.OrderCancelled{OrderID: orderID}, "reason: "},
		{fulfilment.ShipmentScheduled{OrderID: orderID, Country: "gb"}, "country: "},
	} {
		if err := validate(c.payload); err == nil || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%+v: %v, want %q", c.payload, err, c.field)
		}
	}
	for code, ok := range map[string]bool{"EUR": true, "JPY": true, "KWD": true, "": false,
		"eur": false, "EU": false, "XQQ": false, "EUR ": false} {
		if err := fulfilment.CheckCurrency(code); (err == nil) != ok {
			t.Errorf("currency %q: %v", code, err)
		}
	}
}
