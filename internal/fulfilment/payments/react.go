package payments

import (
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

// Participant is the part of payments in the choreography, with its own commands.
var Participant = participant(true)

// capture takes the money.
type capture struct{ cards bool } // whether there is a provider to charge them

func participant(cards bool) consumer.Participant[State] {
	return consumer.Participant[State]{Name: "payments", Locks: locks,
		React: []consumer.Reaction[State]{
			consumer.On(capture{cards}.capture),
			consumer.On(refund[fulfilment.StockRejected]),
			consumer.On(refund[fulfilment.ShipmentFailed]),
			consumer.On(refund[fulfilment.OrderCancelled]),
			consumer.On(charged),
			consumer.On(declined),
			consumer.On(refunded),
			consumer.On(refused),
			consumer.On(refundAgain),
			consumer.On(open),
			consumer.On(deposit),
			consumer.On(closeAccount),
		}}
}

// Open is the command to open an account.
type Open struct{ Customer, Currency string }

// Close is the command to close an account.
type Close struct{ Customer string }

// Deposit is the command to pay into an account.
type Deposit struct {
	Customer, Currency string
	Amount             int64 // minor units
}

func (Open) EventType() string    { return "payments.open" }
func (Deposit) EventType() string { return "payments.deposit" }
func (Close) EventType() string   { return "payments.close" }
func (c Open) Subject() string    { return c.Customer }
func (c Deposit) Subject() string { return c.Customer }
func (c Close) Subject() string   { return c.Customer }

func locks(s *State, e events.Event) {
	switch c := e.Data.(type) {
	case Open:
		s.Accounts.Lock(c.Customer)
	case Deposit:
		s.Accounts.Lock(c.Customer)
	case Close:
		s.Accounts.Lock(c.Customer)
	case fulfilment.OrderPlaced:
		s.Payments.Lock(c.OrderID)
		if c.Card == "" {
			s.Accounts.Lock(c.Customer)
		}
	default: // a compensation
		s.Payments.Lock(e.Data.Subject())
		if p, ok := s.Payments.Loaded(e.Data.Subject()); ok && p.State == Captured && p.Card == "" {
			s.Accounts.Lock(p.Customer)
		}
	}
}

// capture takes the money, or declines. An order that is known already is left alone: it was
// captured before, or a tombstone blocks it.
func (t capture) capture(s *State, e events.Of[fulfilment.OrderPlaced]) (consumer.Effects, error) {
	o := e.Data
	if _, known := s.Payments.Get(o.OrderID); known {
		return consumer.Effects{}, nil
	}
	amount, err := fulfilment.Total(o.Lines)
	if err != nil {
		panic(err) // a valid order adds up
	}
	p := Payment{OrderID: o.OrderID, State: Captured, Customer: o.Customer, Currency: o.Currency,
		Amount: amount, Card: o.Card, UpdatedAt: e.Time}
	if o.Card != "" && t.cards {
		return request(s, p)
	}
	if o.Card != "" {
		p.Reason = fulfilment.ReasonNoCards
		return decline(s, p)
	}
	account, ok := s.Accounts.Get(o.Customer)
	if !ok {
		p.Reason = fulfilment.ReasonNoAccount
		return decline(s, p)
	}
	withdrawn, refusal := account.withdraw(p)
	if refusal != "" {
		p.Reason = refusal
		return decline(s, p)
	}
	s.Accounts.Record(e.Event, withdrawn)
	s.Payments.Set(o.OrderID, p)
	return consumer.Publish(fulfilment.PaymentCaptured{OrderID: o.OrderID, Customer: o.Customer,
		Amount: amount, Currency: o.Currency}), nil
}

func decline(s *State, p Payment) (consumer.Effects, error) {
	p.State = Declined
	s.Payments.Set(p.OrderID, p)
	return consumer.Publish(fulfilment.PaymentDeclined{OrderID: p.OrderID, Reason: p.Reason}), nil
}

// refund gives the money back once, whichever event requires it. When there is nothing to give back
// yet, it leaves a tombstone, so that a late order.placed is not captured.
func refund[T events.Payload](s *State, e events.Of[T]) (consumer.Effects, error) {
	id := e.Data.Subject()
	p, known := s.Payments.Get(id)
	if !known {
		s.Payments.Set(id, Payment{OrderID: id, State: Void, UpdatedAt: e.Time})
		return consumer.Effects{}, nil
	}
	switch {
	case p.State == Charging: // it is refunded when it has succeeded
		p.State, p.UpdatedAt = Unwanted, e.Time
		s.Payments.Set(id, p)
		return consumer.Effects{}, nil
	case p.State != Captured:
		return consumer.Effects{}, nil
	case p.Card != "":
		p.UpdatedAt = e.Time
		return giveBack(s, p)
	}
	account, _ := s.Accounts.Get(p.Customer)
	refunded, refusal := account.refund(p)
	if refusal != "" {
		panic(refusal) // the two tables disagree: a person must see it
	}
	s.Accounts.Record(e.Event, refunded)
	p.State, p.UpdatedAt = Refunded, e.Time
	s.Payments.Set(id, p)
	return consumer.Publish(fulfilment.PaymentRefunded{OrderID: id, Customer: p.Customer,
		Amount: p.Amount, Currency: p.Currency}), nil
}

// open opens an account; opening it again with the same currency changes nothing.
func open(s *State, e events.Of[Open]) (consumer.Effects, error) {
	account, ok := s.Accounts.Get(e.Data.Customer)
	switch {
	case !ok:
		s.Accounts.Record(e.Event, AccountOpened(e.Data))
	case account.Closed:
		return consumer.Effects{}, consumer.Refuse(consumer.Conflict,
			"the account of %s is closed", account.Customer)
	case account.Currency != e.Data.Currency:
		return consumer.Effects{}, consumer.Refuse(consumer.Conflict,
			"the account of %s is in %s", account.Customer, account.Currency)
	}
	return consumer.Effects{}, nil
}

func deposit(s *State, e events.Of[Deposit]) (consumer.Effects, error) {
	account, ok := s.Accounts.Get(e.Data.Customer)
	if !ok {
		return consumer.Effects{}, consumer.Refuse(consumer.NotFound,
			"there is no account of %s: open it with PUT /accounts/%s", e.Data.Customer, e.Data.Customer)
	}
	switch deposited, refusal := account.deposit(e.Data.Amount, e.Data.Currency); refusal {
	case "":
		s.Accounts.Record(e.Event, deposited)
		return consumer.Effects{}, nil
	case tooMuch:
		return consumer.Effects{}, consumer.Refuse(consumer.Invalid, "%s", refusal)
	default:
		return consumer.Effects{}, consumer.Refuse(consumer.Conflict, "%s", refusal)
	}
}

// closeAccount closes an account with any balance; closing it again changes nothing.
func closeAccount(s *State, e events.Of[Close]) (consumer.Effects, error) {
	account, ok := s.Accounts.Get(e.Data.Customer)
	if !ok {
		return consumer.Effects{}, consumer.Refuse(consumer.NotFound, "there is no account of %s",
			e.Data.Customer)
	}
	if !account.Closed {
		s.Accounts.Record(e.Event, AccountClosed(e.Data))
	}
	return consumer.Effects{}, nil
}
