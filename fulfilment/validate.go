package fulfilment

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"unicode"
	"unicode/utf8"

	"github.com/bojanz/currency"

	"github.com/quadrille-go/quadrille/events"
)

// The bounds of an order.
const (
	MaxLines    = 100
	MaxText     = 200 // characters of a reason or of a field of an address
	maxQuantity = 1_000_000_000
)

// ErrOverflow says that an amount does not fit 64 bits of minor units.
var ErrOverflow = errors.New("amount overflows")

var (
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)
	countryPattern = regexp.MustCompile(`^[A-Z]{2}$`)
)

// Total returns the sum of quantity times unit price, or ErrOverflow; it never wraps.
func Total(lines []Line) (int64, error) {
	var total int64
	for i, l := range lines {
		if l.Quantity < 0 || l.UnitPrice < 0 {
			return 0, fmt.Errorf("lines[%d]: negative quantity or unit_price", i)
		}
		hi, product := bits.Mul64(uint64(l.Quantity), uint64(l.UnitPrice))
		if hi != 0 || product > uint64(math.MaxInt64-total) {
			return 0, fmt.Errorf("lines[%d]: %w", i, ErrOverflow)
		}
		total += int64(product)
	}
	return total, nil
}

// CheckName refuses a customer or SKU that is not a short plain name.
func CheckName(field, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s: %.80q must be 1 to 64 characters of A-Z a-z 0-9 . _ @ + - and begin "+
			"with a letter or digit", field, name)
	}
	return nil
}

// CheckCurrency refuses what is not a currency code of ISO 4217.
func CheckCurrency(code string) error {
	if code == "" || !currency.IsValid(code) { // the library takes "no currency" for one
		return fmt.Errorf("currency: %.16q is not an ISO 4217 code", code)
	}
	return nil
}

// CheckOrderID refuses what is not a UUID in lower case: one order must not have two spellings.
func CheckOrderID(id string) error {
	canonical, err := events.ParseID(id)
	if err != nil || canonical != id {
		return fmt.Errorf("order_id: %.64q is not a UUID in lower case", id)
	}
	return nil
}

// Validate joins all that is wrong, each with the path of its field.
func (p OrderPlaced) Validate() error {
	errs := []error{CheckOrderID(p.OrderID), CheckName("customer", p.Customer),
		CheckCurrency(p.Currency), p.Address.validate()}
	if p.Card != "" {
		errs = append(errs, CheckCard(p.Card))
	}
	if len(p.Lines) == 0 || len(p.Lines) > MaxLines {
		errs = append(errs, fmt.Errorf("lines: %d lines, an order has 1 to %d", len(p.Lines), MaxLines))
		return errors.Join(errs...)
	}
	for i, l := range p.Lines {
		if err := CheckName("sku", l.SKU); err != nil {
			errs = append(errs, fmt.Errorf("lines[%d].%w", i, err))
		}
		if l.Quantity < 1 || l.Quantity > maxQuantity {
			errs = append(errs, fmt.Errorf("lines[%d].quantity: %d is not between 1 and %d", i, l.Quantity,
				maxQuantity))
		}
		if l.UnitPrice < 1 {
			errs = append(errs, fmt.Errorf("lines[%d].unit_price: %d is not positive", i, l.UnitPrice))
		}
	}
	if errors.Join(errs...) == nil {
		_, err := Total(p.Lines)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (a Address) validate() error {
	errs := []error{
		checkText("address.name", a.Name), checkText("address.street", a.Street),
		checkText("address.city", a.City), checkText("address.postal_code", a.PostalCode),
	}
	if !countryPattern.MatchString(a.Country) {
		errs = append(errs, fmt.Errorf("address.country: %.16q is not an ISO 3166-1 alpha-2 code",
			a.Country))
	}
	return errors.Join(errs...)
}

func checkText(field, s string) error {
	if s == "" || utf8.RuneCountInString(s) > MaxText {
		return fmt.Errorf("%s: must have 1 to %d characters", field, MaxText)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("%s: has a control character", field)
		}
	}
	return nil
}

// CheckAmount refuses an amount that is not positive, or not of a known currency.
func CheckAmount(amount int64, code string) error {
	if amount < 1 {
		return fmt.Errorf("amount: %d is not positive", amount)
	}
	return CheckCurrency(code)
}

func (p OrderConfirmed) Validate() error { return CheckOrderID(p.OrderID) }
func (p OrderCancelled) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}
func (p PaymentCaptured) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), CheckName("customer", p.Customer),
		CheckAmount(p.Amount, p.Currency))
}
func (p PaymentDeclined) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}
func (p PaymentRefunded) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), CheckName("customer", p.Customer),
		CheckAmount(p.Amount, p.Currency))
}
func (p StockReserved) Validate() error { return CheckOrderID(p.OrderID) }
func (p StockRejected) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}
func (p StockReleased) Validate() error { return CheckOrderID(p.OrderID) }
func (p ShipmentScheduled) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkCountry(p.Country))
}
func (p ShipmentFailed) Validate() error {
	return errors.Join(CheckOrderID(p.OrderID), checkText("reason", p.Reason))
}
func (p ShipmentCancelled) Validate() error { return CheckOrderID(p.OrderID) }

func checkCountry(code string) error {
	if !countryPattern.MatchString(code) {
		return fmt.Errorf("country: %.16q is not an ISO 3166-1 alpha-2 code", code)
	}
	return nil
}
