package payments

import (
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/eventstore"
)

// The tables for reading. What decides about money never looks at them: they may be behind.

// Balance is a row of account_balances.
type Balance struct {
	Customer  string    `db:"customer" json:"customer"`
	Currency  string    `db:"currency" json:"currency"`
	Deposited int64     `db:"deposited" json:"deposited"`
	Balance   int64     `db:"balance" json:"balance"`
	Closed    bool      `db:"closed" json:"closed"`
	Version   int64     `db:"version" json:"version"` // of the account's stream
	UpdatedAt time.Time `db:"updated_at" json:"updated_at"`
}

// Entry is a row of account_statement: one fact that has moved money.
type Entry struct {
	Entry    string `db:"entry" json:"-"` // the key: customer and version
	Customer string `db:"customer" json:"-"`
	Version  int64  `db:"version" json:"version"`
	Type     string `db:"type" json:"type"`
	OrderID  string `db:"order_id" json:"order_id,omitzero"`
	// minor units, negative when it has left the account
	Amount  int64     `db:"amount" json:"amount"`
	Balance int64     `db:"balance" json:"balance"` // after it
	At      time.Time `db:"at" json:"at"`
}

// Projections returns both.
func Projections() []eventstore.Projection {
	facts, kinds := Account{}.Facts(), []string{"account"}
	return []eventstore.Projection{
		eventstore.Project(eventstore.Projection{
			Name: "account_balances", Key: "customer", Version: 1, Kinds: kinds, Facts: facts,
			Columns: `customer text PRIMARY KEY, currency text NOT NULL, deposited bigint NOT NULL,
				balance bigint NOT NULL,
				closed boolean NOT NULL, version bigint NOT NULL, updated_at timestamptz NOT NULL,
				CHECK (balance BETWEEN 0 AND deposited)`,
		}, func(h eventstore.Decoded) []string { return []string{h.Data.Subject()} }, toBalance),
		eventstore.Project(eventstore.Projection{
			Name: "account_statement", Key: "entry", Version: 1, Kinds: kinds, Facts: facts,
			Columns: `entry text PRIMARY KEY, customer text NOT NULL, version bigint NOT NULL,
				type text NOT NULL, order_id text NOT NULL,
				amount bigint NOT NULL, balance bigint NOT NULL, at timestamptz NOT NULL,
				UNIQUE (customer, version)`,
		}, func(h eventstore.Decoded) []string {
			return []string{entryOf(h.Data.Subject(), h.Version-1), entryOf(h.Data.Subject(), h.Version)}
		}, toStatement),
	}
}

func entryOf(customer string, version int64) string {
	return fmt.Sprintf("%s/%d", customer,
		version)
}

func toBalance(rows *consumer.Rows[string, Balance], h eventstore.Decoded) {
	key := h.Data.Subject()
	b, _ := rows.Get(key)
	a := Account{Customer: key, Currency: b.Currency, Deposited: b.Deposited, Balance: b.Balance,
		Closed: b.Closed}.Fold(h.Data)
	rows.Set(key, Balance{a.Customer, a.Currency, a.Deposited, a.Balance, a.Closed, h.Version, h.Time})
}

// toStatement adds an entry for every fact, those that move nothing included, so that each finds
// the balance before it.
func toStatement(rows *consumer.Rows[string, Entry], h eventstore.Decoded) {
	customer := h.Data.Subject()
	before, _ := rows.Get(entryOf(customer, h.Version-1))
	e := Entry{
		Entry: entryOf(customer, h.Version), Customer: customer, Version: h.Version,
		Type: h.Data.EventType(), At: h.Time,
	}
	switch f := h.Data.(type) {
	case FundsDeposited:
		e.Amount = f.Amount
	case FundsWithdrawn:
		e.Amount, e.OrderID = -f.Amount, f.OrderID
	case WithdrawalRefunded:
		e.Amount, e.OrderID = f.Amount, f.OrderID
	}
	e.Balance = before.Balance + e.Amount
	rows.Set(e.Entry, e)
}
