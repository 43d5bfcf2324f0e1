package consumer_test

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// OrderPlaced and PaymentCaptured are the events of the examples.
type (
	OrderPlaced struct {
		Order    string `json:"order"`
		Customer string `json:"customer"`
		Amount   int64  `json:"amount"`
	}
	PaymentCaptured struct {
		Order string `json:"order"`
	}
)

func (OrderPlaced) EventType() string     { return "order.placed" }
func (o OrderPlaced) Subject() string     { return o.Order }
func (PaymentCaptured) EventType() string { return "payment.captured" }
func (p PaymentCaptured) Subject() string { return p.Order }

// A simple service runs its own SQL, in the transaction in which the inbox has the event: it takes
// effect once, however often the event is delivered.
func ExampleHandle() {
	handler := consumer.Handle(func(ctx context.Context, tx *sqlx.Tx, e events.Of[OrderPlaced]) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO mails (order_id, text) VALUES ($1, $2)`, e.Data.Order,
			"Thank you for your order!")
		return err
	})
	fmt.Println(handler.Types())
	// Output: [order.placed]
}

// Outside calls happen outside of the transaction, so they may happen again. The id of the event is
// the same each time: the other side can tell.
func ExampleCall() {
	handler := consumer.Call(func(ctx context.Context, e events.Of[OrderPlaced]) (events.Payload,
		error) {
		if err := charge(ctx, e.ID, e.Data.Customer, e.Data.Amount); err != nil {
			return nil, err // tried again later
		}
		return PaymentCaptured{Order: e.Data.Order}, nil
	})
	fmt.Println(handler.Types())
	// Output: [order.placed]
}

func charge(_ context.Context, _, _ string, _ int64) error { return nil }

// Shop is the state of the participant below; its field order is the order in which rows are
// locked.
type Shop struct {
	Accounts consumer.Rows[string, Credit] `table:"accounts" key:"customer"`
}

// Credit is a row.
type Credit struct {
	Customer string `db:"customer" json:"customer"`
	Balance  int64  `db:"balance" json:"balance"`
}

// A participant is pure functions, and the same code runs in a unit test: on a memory instead of a
// database.
func ExampleParticipant() {
	payments := consumer.Participant[Shop]{
		Name: "payments",
		Locks: func(s *Shop, e events.Event) {
			if placed, ok := e.Data.(OrderPlaced); ok {
				s.Accounts.Lock(placed.Customer)
			}
		},
		React: []consumer.Reaction[Shop]{consumer.On(func(s *Shop,
			e events.Of[OrderPlaced]) (consumer.Effects, error) {
			account, _ := s.Accounts.Get(e.Data.Customer)
			account.Balance -= e.Data.Amount
			s.Accounts.Set(e.Data.Customer, account)
			return consumer.Publish(PaymentCaptured{Order: e.Data.Order}), nil
		})},
	}

	memory := consumer.Memory{}
	if err := memory.Put("accounts", "anna", Credit{Customer: "anna", Balance: 100}); err != nil {
		panic(err)
	}
	placed := events.Cause(events.Event{}, "/orders", time.Now(),
		OrderPlaced{Order: "o-1", Customer: "anna", Amount: 30})
	_, results, err := payments.ApplyTo(memory, placed)
	fmt.Println(results[0].Effects.Publish, err)
	fmt.Print(memory)
	// Output:
	// [{o-1}] <nil>
	// accounts anna {"customer":"anna","balance":70}
}

// Charge is a request to the outside, and Charged its answer. They never leave the service.
type (
	Charge struct {
		Order  string `json:"order"`
		Amount int64  `json:"amount"`
	}
	Charged struct {
		Order string `json:"order"`
	}
)

func (Charge) EventType() string  { return "payments.charge" }
func (c Charge) Subject() string  { return c.Order }
func (Charged) EventType() string { return "payments.charged" }
func (c Charged) Subject() string { return c.Order }

// Stateless is the state of a participant that keeps nothing.
type Stateless struct{}

// A reaction requests a call, the handler makes it after the commit, and the answer is an event for
// another reaction of the same service. A service has both handlers, in Config.Handlers.
func ExampleRequest() {
	payments := consumer.Participant[Stateless]{
		Name:  "payments",
		Locks: func(*Stateless, events.Event) {},
		React: []consumer.Reaction[Stateless]{
			consumer.On(func(_ *Stateless, e events.Of[OrderPlaced]) (consumer.Effects, error) {
				return consumer.Request(Charge{Order: e.Data.Order, Amount: e.Data.Amount}), nil
			}),
			consumer.On(func(_ *Stateless, e events.Of[Charged]) (consumer.Effects, error) {
				return consumer.Publish(PaymentCaptured{Order: e.Data.Order}), nil
			}),
		},
	}
	call := consumer.Call(func(ctx context.Context, e events.Of[Charge]) (events.Payload, error) {
		if err := charge(ctx, e.ID, e.Data.Order, e.Data.Amount); err != nil {
			return nil, err // the call is made again later, with the same e.ID
		}
		return Charged{Order: e.Data.Order}, nil
	}).With(consumer.Options{Timeout: 5 * time.Second, Concurrency: 10})

	placed := events.Cause(events.Event{}, "/orders", time.Now(),
		OrderPlaced{Order: "o-1", Amount: 30})
	answer := events.Command(Charged{Order: "o-1"}, time.Now())
	_, results, err := payments.ApplyTo(consumer.Memory{}, placed, answer)
	fmt.Println(results[0].Effects.Request, call.Types())
	fmt.Println(results[1].Effects.Publish, err)
	// Output:
	// [{o-1 30}] [payments.charge]
	// [{o-1}] <nil>
}
