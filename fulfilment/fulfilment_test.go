package fulfilment_test

import (
	"errors"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

const order = "0190a0e0-0000-7000-8000-000000000001"

func TestTotalIsExactOrRefused(t *testing.T) {
	t.Parallel()
	edge := rapid.SampledFrom([]int64{0, 1, 2, 3, 1 << 31, 1<<32 - 1, 1 << 32, math.MaxInt64 / 2,
		math.MaxInt64 - 1, math.MaxInt64})
	number := rapid.OneOf(edge, rapid.Int64Min(0), rapid.Int64Range(0, 1000))
	rapid.Check(t, func(rt *rapid.T) {
		var lines []fulfilment.Line
		want := new(big.Int)
		for range rapid.IntRange(0, 5).Draw(rt, "lines") {
			l := fulfilment.Line{Quantity: number.Draw(rt, "quantity"),
				UnitPrice: number.Draw(rt, "unit price")}
			lines = append(lines, l)
			want.Add(want, new(big.Int).Mul(big.NewInt(l.Quantity), big.NewInt(l.UnitPrice)))
		}
		got, err := fulfilment.Total(lines)
		switch {
		case want.IsInt64() && (err != nil || got != want.Int64()):
			rt.Fatalf("total %d, %v; want %s", got, err, want)
		case !want.IsInt64() && !errors.Is(err, fulfilment.ErrOverflow):
			rt.Fatalf("total %d, %v; %s overflows", got, err, want)
		}
	})
	one := fulfilment.Line{Quantity: 1, UnitPrice: 1}
	if got, err := fulfilment.Total([]fulfilment.Line{{Quantity: 1, UnitPrice: math.MaxInt64 - 1},
		one}); err != nil || got != math.MaxInt64 {
		t.Errorf("the largest total: %d, %v", got, err)
	}
	if got, err := fulfilment.Total([]fulfilment.Line{{Quantity: 1, UnitPrice: math.MaxInt64},
		one}); !errors.Is(err, fulfilment.ErrOverflow) {
		t.Errorf("one above the largest total: %d, %v", got, err)
	}
	for _, l := range []fulfilment.Line{{Quantity: -1, UnitPrice: 1}, {Quantity: 1, UnitPrice: -1},
		{Quantity: -1, UnitPrice: -1}} {
		if got, err := fulfilment.Total([]fulfilment.Line{l}); err == nil {
			t.Errorf("total of %+v: %d", l, got)
		}
	}
}

func TestSamplesAreValidAndComeBack(t *testing.T) {
	t.Parallel()
	for _, want := range fulfilment.Samples(order) {
		data, err := events.Encode(want)
		if err != nil {
			t.Errorf("%s: %v", want.EventType(), err)
			continue
		}
		if got, err := fulfilment.Catalogue().Decode(want.EventType(), data); err != nil ||
			!reflect.DeepEqual(got, want) || got.Subject() != order {
			t.Errorf("%s: %+v, %v", want.EventType(), got, err)
		}
	}
}

// placed returns a valid order, changed.
func placed(change func(p *fulfilment.OrderPlaced)) fulfilment.OrderPlaced {
	p := fulfilment.Samples(order)[0].(fulfilment.OrderPlaced)
	change(&p)
	return p
}

func TestInvalidPayloadsAreRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", fulfilment.MaxText+1)
	for field, p := range map[string]interface{ Validate() error }{
		"order_id:": fulfilment.OrderConfirmed{OrderID: strings.ToUpper(
			"0190a0e0-0000-7000-8000-00000000000a")},
		"order_id: \"\"":   fulfilment.StockReserved{},
		"customer:":        placed(func(p *fulfilment.OrderPlaced) { p.Customer = "a b" }),
		"currency:":        placed(func(p *fulfilment.OrderPlaced) { p.Currency = "EURO" }),
		"address.name:":    placed(func(p *fulfilment.OrderPlaced) { p.Address.Name = long }),
		"address.street:":  placed(func(p *fulfilment.OrderPlaced) { p.Address.Street = "a\x00b" }),
		"address.city:":    placed(func(p *fulfilment.OrderPlaced) { p.Address.City = "" }),
		"address.country:": placed(func(p *fulfilment.OrderPlaced) { p.Address.Country = "gb" }),
		"lines: 0":         placed(func(p *fulfilment.OrderPlaced) { p.Lines = nil }),
		"lines: 101": placed(func(p *fulfilment.OrderPlaced) {
			p.Lines = make([]fulfilment.Line,
				101)
		}),
		"lines[1].sku:":        placed(func(p *fulfilment.OrderPlaced) { p.Lines[1].SKU = "-" }),
		"lines[0].quantity:":   placed(func(p *fulfilment.OrderPlaced) { p.Lines[0].Quantity = 0 }),
		"lines[0].unit_price:": placed(func(p *fulfilment.OrderPlaced) { p.Lines[0].UnitPrice = 0 }),
		"overflow": placed(func(p *fulfilment.OrderPlaced) {
			p.Lines[0].UnitPrice,
				p.Lines[0].Quantity = math.MaxInt64, 2
		}),
		"reason:": fulfilment.OrderCancelled{OrderID: order, Reason: long},
		"amount:": fulfilment.PaymentCaptured{OrderID: order, Customer: "ada",
			Currency: "EUR"},
		"country:": fulfilment.ShipmentScheduled{OrderID: order, Country: "G"},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
