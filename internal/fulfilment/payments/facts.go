package payments

import (
	"encoding/json"
	"fmt"

	"github.com/bojanz/currency"
)

// The facts of an account, as the event store keeps them. They stay in this service: what others
// may know of them is published in the events of the choreography. A version that was once written
// is never changed: testdata holds each.

// AccountOpened begins a stream.
type AccountOpened struct {
	Customer string `json:"customer"`
	Currency string `json:"currency"`
}

// FundsDeposited is of the second major version. In the first the amount was a text with a decimal
// point, "12.50"; now it is in minor units, like every amount.
type FundsDeposited struct {
	Customer string `json:"customer"`
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"`
}

// FundsWithdrawn is what an order has cost.
type FundsWithdrawn struct {
	Customer string `json:"customer"`
	OrderID  string `json:"order_id"`
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"`
}

// WithdrawalRefunded gives back what an order has cost.
type WithdrawalRefunded struct {
	Customer string `json:"customer"`
	OrderID  string `json:"order_id"`
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"`
}

// AccountClosed ends deposits and withdrawals; refunds still come.
type AccountClosed struct {
	Customer string `json:"customer"`
}

func (AccountOpened) EventType() string      { return "account.opened" }
func (FundsDeposited) EventType() string     { return "funds.deposited" }
func (FundsWithdrawn) EventType() string     { return "funds.withdrawn" }
func (WithdrawalRefunded) EventType() string { return "withdrawal.refunded" }
func (AccountClosed) EventType() string      { return "account.closed" }

func (f AccountOpened) Subject() string      { return f.Customer }
func (f FundsDeposited) Subject() string     { return f.Customer }
func (f FundsWithdrawn) Subject() string     { return f.Customer }
func (f WithdrawalRefunded) Subject() string { return f.Customer }
func (f AccountClosed) Subject() string      { return f.Customer }

// Major is the version that is written today.
func (FundsDeposited) Major() int { return 2 }

// Upcast reads the amount of the first version in minor units.
func (FundsDeposited) Upcast(_ int, data []byte) ([]byte, error) {
	var first struct {
		Customer string `json:"customer"`
		Currency string `json:"currency"`
		Amount   string `json:"amount"`
	}
	if err := json.Unmarshal(data, &first); err != nil {
		return nil, err
	}
	amount, err := currency.NewAmount(first.Amount, first.Currency)
	if err != nil {
		return nil, err
	}
	minor, err := amount.Int64()
	if err != nil || !amount.Round().Equal(amount) {
		return nil, fmt.Errorf("amount %s %s is not of whole minor units", first.Amount, first.Currency)
	}
	return json.Marshal(FundsDeposited{first.Customer, first.Currency, minor})
}
