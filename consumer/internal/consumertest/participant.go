// Package consumertest is the service on which the tests of package consumer run: a participant
// with two tables, the topology that it lives in, and a world of real servers around it.
package consumertest

import (
	"fmt"
	"runtime"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// Service is the name of the service under test; Shop and Stall publish what it handles.
const (
	Service = "bank"
	Audit   = "audit" // handles what the bank handles
	Shop    = "shop"
	Stall   = "stall"
)

// Placed makes the participant take the amount from the customer's account.
type Placed struct {
	Order    string `json:"order"`
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"`
}

// Cancelled gives back what Placed took, or sees to it that nothing will be taken.
type Cancelled struct {
	Order string `json:"order"`
}

// Moved moves money between two accounts.
type Moved struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int64  `json:"amount"`
}

// Reminded sets a deadline for an order; Expired is what is delivered then.
type (
	Reminded struct {
		Order string    `json:"order"`
		At    time.Time `json:"at"`
	}
	Expired struct {
		Order string `json:"order"`
	}
)

// Noted and Asked are left to the tests, which handle them with Handle and Call; Opened is the
// stall's.
type (
	Noted struct {
		Order string `json:"order"`
		Text  string `json:"text"`
	}
	Asked struct {
		Order string `json:"order"`
	}
	Opened struct {
		Stall string `json:"stall"`
	}
)

// What the bank says.
type (
	Captured struct {
		Order  string `json:"order"`
		Amount int64  `json:"amount"`
	}
	Refunded struct {
		Order  string `json:"order"`
		Amount int64  `json:"amount"`
	}
	Answered struct {
		Order string `json:"order"`
	}
	Overdue struct {
		Order string `json:"order"`
	}
	// Inquire is a request of an outside call, and Inquired is its answer.
	Inquire struct {
		Order string `json:"order"`
	}
	Inquired struct {
		Order string `json:"order"`
	}
	// Undeclared is in no topology.
	Undeclared struct {
		Order string `json:"order"`
	}
)

func (Placed) EventType() string     { return "order.placed" }
func (p Placed) Subject() string     { return p.Order }
func (Cancelled) EventType() string  { return "order.cancelled" }
func (p Cancelled) Subject() string  { return p.Order }
func (Moved) EventType() string      { return "money.moved" }
func (p Moved) Subject() string      { return p.From }
func (Reminded) EventType() string   { return "order.reminded" }
func (p Reminded) Subject() string   { return p.Order }
func (Expired) EventType() string    { return "order.expired" }
func (p Expired) Subject() string    { return p.Order }
func (Noted) EventType() string      { return "order.noted" }
func (p Noted) Subject() string      { return p.Order }
func (Asked) EventType() string      { return "order.asked" }
func (p Asked) Subject() string      { return p.Order }
func (Opened) EventType() string     { return "stall.opened" }
func (p Opened) Subject() string     { return p.Stall }
func (Captured) EventType() string   { return "payment.captured" }
func (p Captured) Subject() string   { return p.Order }
func (Refunded) EventType() string   { return "payment.refunded" }
func (p Refunded) Subject() string   { return p.Order }
func (Answered) EventType() string   { return "question.answered" }
func (p Answered) Subject() string   { return p.Order }
func (Overdue) EventType() string    { return "payment.overdue" }
func (p Overdue) Subject() string    { return p.Order }
func (Inquire) EventType() string    { return "bank.inquire" }
func (p Inquire) Subject() string    { return p.Order }
func (Inquired) EventType() string   { return "bank.inquired" }
func (p Inquired) Subject() string   { return p.Order }
func (Undeclared) EventType() string { return "nobody.declared" }
func (p Undeclared) Subject() string { return p.Order }

// Validate panics where one would return an error, as a careless one may.
func (p Captured) Validate() error { return careless(p.Amount < 0, "negative amount") }

// Validate panics as well, or ends its goroutine.
func (p Noted) Validate() error {
	if p.Text == "exit" {
		runtime.Goexit()
	}
	return careless(p.Text == "panic", "text that panics")
}

func careless(wrong bool, text string) error {
	if wrong {
		panic(text)
	}
	return nil
}

// Topology is the choreography of shop, stall, bank and audit.
func Topology() topology.Topology {
	return topology.Topology{Name: "market", Services: []topology.Service{
		{Name: Shop, Commands: []topology.Command{{Does: "sell", Publishes: []string{
			"order.placed", "order.cancelled", "money.moved", "order.reminded", "order.noted", "order.asked",
		}}}},
		{Name: Stall, Commands: []topology.Command{{Does: "open", Publishes: []string{"stall.opened"}}}},
		{
			Name: Service,
			Commands: []topology.Command{
				{Does: "expire", Type: "order.expired", Publishes: []string{"payment.overdue"},
					After: time.Hour},
				{Does: "pass the answer on", Type: "bank.inquired",
					Publishes: []string{"question.answered"}},
			},
			Calls: []topology.Call{{Type: "bank.inquire", Does: "inquire",
				Answers: []string{"bank.inquired"}}},
			Reacts: []topology.Reaction{
				{Handles: "order.placed", Does: "capture", Publishes: []string{"payment.captured"}},
				{Handles: "order.cancelled", Does: "refund", Publishes: []string{"payment.refunded"},
					Undoes: "capture"},
				{Handles: "money.moved", Does: "move"},
				{Handles: "order.reminded", Does: "remind"},
				{Handles: "order.noted", Does: "note"},
				{Handles: "order.asked", Does: "answer", Publishes: []string{"question.answered"},
					Requests: []string{"bank.inquire"}},
				{Handles: "stall.opened", Does: "note"},
			},
		},
		{Name: Audit, Reacts: []topology.Reaction{{Handles: "order.noted", Does: "note"}}},
	}}
}

// Payment is a row of the table payments.
type Payment struct {
	Order    string `db:"order_id" json:"order"`
	Customer string `db:"customer" json:"customer"`
	Amount   int64  `db:"amount" json:"amount"`
	Status   string `db:"status" json:"status"`
}

// Account is a row of the table accounts.
type Account struct {
	Customer string `db:"customer" json:"customer"`
	Balance  int64  `db:"balance" json:"balance"`
}

// State is what the bank's reactions work on.
type State struct {
	Payments consumer.Rows[string, Payment] `table:"payments" key:"order_id"`
	Accounts consumer.Rows[string, Account] `table:"accounts" key:"customer"`
}

// Participant returns the bank. First, if set, runs before the reaction to Placed, for a test to
// fail; what it returns is published instead.
func Participant(first func(s *State,
	e events.Of[Placed]) (consumer.Effects, error)) consumer.Participant[State] {
	placed := func(s *State, e events.Of[Placed]) (consumer.Effects, error) {
		if first != nil {
			if effects, err := first(s, e); err != nil || len(effects.Publish) > 0 {
				return effects, err
			}
		}
		return Capture(s, e)
	}
	return consumer.Participant[State]{Name: Service, Locks: Locks, React: []consumer.Reaction[State]{
		consumer.On(placed), consumer.On(Refund), consumer.On(Move), consumer.On(remind),
		consumer.On(expire),
	}}
}

// Locks asks for what an event of the bank touches.
func Locks(s *State, e events.Event) {
	switch d := e.Data.(type) {
	case Placed:
		s.Payments.Lock(d.Order)
		s.Accounts.Lock(d.Customer)
	case Cancelled:
		s.Payments.Lock(d.Order)
		if p, ok := s.Payments.Loaded(d.Order); ok {
			s.Accounts.Lock(p.Customer)
		}
	case Moved:
		s.Accounts.Lock(d.From)
		s.Accounts.Lock(d.To)
	case Expired:
		s.Payments.Lock(d.Order)
	case Reminded:
	default:
		panic(fmt.Sprintf("bank: %T", d))
	}
}

func (s *State) add(customer string, amount int64) {
	a, _ := s.Accounts.Get(customer)
	s.Accounts.Set(customer, Account{Customer: customer, Balance: a.Balance + amount})
}

// Capture is the reaction to Placed.
func Capture(s *State, e events.Of[Placed]) (consumer.Effects, error) {
	d := e.Data
	if _, known := s.Payments.Get(d.Order); known {
		return consumer.Effects{}, nil
	}
	s.Payments.Set(d.Order, Payment{Order: d.Order, Customer: d.Customer, Amount: d.Amount,
		Status: "captured"})
	s.add(d.Customer, -d.Amount)
	return consumer.Publish(Captured{Order: d.Order, Amount: d.Amount}), nil
}

// Refund is the reaction to Cancelled.
func Refund(s *State, e events.Of[Cancelled]) (consumer.Effects, error) {
	p, known := s.Payments.Get(e.Data.Order)
	switch {
	case !known: // a tombstone: Placed will come, and must not take anything
		s.Payments.Set(e.Data.Order, Payment{Order: e.Data.Order, Status: "cancelled"})
		return consumer.Effects{}, nil
	case p.Status != "captured":
		return consumer.Effects{}, nil
	}
	p.Status = "refunded"
	s.Payments.Set(p.Order, p)
	s.add(p.Customer, p.Amount)
	return consumer.Publish(Refunded{Order: p.Order, Amount: p.Amount}), nil
}

// Move is the reaction to Moved.
func Move(s *State, e events.Of[Moved]) (consumer.Effects, error) {
	s.add(e.Data.From, -e.Data.Amount)
	s.add(e.Data.To, e.Data.Amount)
	return consumer.Effects{}, nil
}

func remind(_ *State, e events.Of[Reminded]) (consumer.Effects, error) {
	return consumer.Schedule(e.Data.At.Sub(e.Time), Expired{Order: e.Data.Order}), nil
}

func expire(_ *State, e events.Of[Expired]) (consumer.Effects, error) {
	return consumer.Publish(Overdue{Order: e.Data.Order}), nil
}
