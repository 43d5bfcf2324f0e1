package payments

import (
	"fmt"
	"math"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

// Account is a customer's money in minor units: the fold of what has happened to it. Deposited is
// always Balance and Withdrawn together, and all three fit 64 bits.
type Account struct {
	Customer  string `json:"customer"`
	Currency  string `json:"currency"`
	Deposited int64  `json:"deposited"` // ever
	Balance   int64  `json:"balance"`
	Withdrawn int64  `json:"withdrawn"` // and not refunded
	Closed    bool   `json:"closed"`
}

// Fold takes every fact as it is: what may happen was decided before it did.
func (a Account) Fold(fact events.Payload) Account {
	switch f := fact.(type) {
	case AccountOpened:
		a.Customer, a.Currency = f.Customer, f.Currency
	case FundsDeposited:
		a.Deposited += f.Amount
		a.Balance += f.Amount
	case FundsWithdrawn:
		a.Balance -= f.Amount
		a.Withdrawn += f.Amount
	case WithdrawalRefunded:
		a.Balance += f.Amount
		a.Withdrawn -= f.Amount
	case AccountClosed:
		a.Closed = true
	}
	return a
}

// FoldVersion is raised when Fold or the fields of Account change.
func (Account) FoldVersion() int { return 1 }

// Facts are a sample of each.
func (Account) Facts() []events.Payload {
	return []events.Payload{AccountOpened{}, FundsDeposited{}, FundsWithdrawn{}, WithdrawalRefunded{},
		AccountClosed{}}
}

// deposit decides about a deposit: it happens, or is refused for a reason.
func (a Account) deposit(amount int64, currency string) (_ FundsDeposited, refusal string) {
	switch {
	case a.Closed:
		return FundsDeposited{}, "the account of " + a.Customer + " is closed"
	case a.Currency != currency:
		return FundsDeposited{}, "the account of " + a.Customer + " is in " + a.Currency
	case a.Deposited > math.MaxInt64-amount:
		return FundsDeposited{}, tooMuch
	}
	return FundsDeposited{a.Customer, currency, amount}, ""
}

const tooMuch = "the sum of all deposits would not fit 64 bits"

// withdraw decides about a payment from the account.
func (a Account) withdraw(p Payment) (_ FundsWithdrawn, refusal string) {
	switch {
	case a.Closed:
		return FundsWithdrawn{}, fulfilment.ReasonClosed
	case a.Currency != p.Currency:
		return FundsWithdrawn{}, fulfilment.ReasonCurrency
	case a.Balance < p.Amount:
		return FundsWithdrawn{}, fulfilment.ReasonNoFunds
	}
	return FundsWithdrawn{a.Customer, p.OrderID, p.Currency, p.Amount}, ""
}

// refund decides about giving a payment back; that the account is closed is no reason to keep it.
func (a Account) refund(p Payment) (_ WithdrawalRefunded, refusal string) {
	switch {
	case p.State != Captured || p.Card != "" || p.Customer != a.Customer || p.Amount > a.Withdrawn:
		return WithdrawalRefunded{}, fmt.Sprintf("the payment of %d %s for order %s, which is %s, was "+
			"not withdrawn from the account of %s",
			p.Amount, p.Currency, p.OrderID, p.State, a.Customer)
	case a.Currency != p.Currency:
		return WithdrawalRefunded{}, "the account of " + a.Customer + " is in " + a.Currency
	}
	return WithdrawalRefunded{a.Customer, p.OrderID, p.Currency, p.Amount}, ""
}
