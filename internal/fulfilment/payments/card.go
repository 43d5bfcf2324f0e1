package payments

import (
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

// A card is charged by the outside world, which may answer late, or never. So the payment of such
// an order has states in between, and what comes meanwhile is noted in them: an order that is
// cancelled while its charge is under way is refunded when the charge has succeeded, and not
// before.

// RefundAgain is a person's command, once the reason of a refusal is repaired.
type RefundAgain struct{ OrderID string }

func (RefundAgain) EventType() string { return "payments.refund_again" }
func (c RefundAgain) Subject() string { return c.OrderID }

// request requests the charge of a payment.
func request(s *State, p Payment) (consumer.Effects, error) {
	p.State = Charging
	s.Payments.Set(p.OrderID, p)
	return consumer.Request(Charge{OrderID: p.OrderID, Customer: p.Customer,
		Amount: p.Amount, Currency: p.Currency, Card: p.Card}), nil
}

// charged captures what the provider has taken, or requests a refund when the order was cancelled
// meanwhile.
func charged(s *State, e events.Of[ChargeSucceeded]) (consumer.Effects, error) {
	p, _ := s.Payments.Get(e.Data.OrderID)
	p.UpdatedAt = e.Time
	switch p.State {
	case Charging:
		p.State = Captured
		s.Payments.Set(p.OrderID, p)
		return consumer.Publish(fulfilment.PaymentCaptured{OrderID: p.OrderID, Customer: p.Customer,
			Amount: p.Amount, Currency: p.Currency}), nil
	case Unwanted:
		return giveBack(s, p)
	}
	return consumer.Effects{}, nil
}

// declined ends the payment; of an order that is cancelled already nothing is published.
func declined(s *State, e events.Of[ChargeDeclined]) (consumer.Effects, error) {
	p, _ := s.Payments.Get(e.Data.OrderID)
	wanted := p.State == Charging
	if !wanted && p.State != Unwanted {
		return consumer.Effects{}, nil
	}
	p.State, p.Reason, p.UpdatedAt = Declined, e.Data.Reason, e.Time
	s.Payments.Set(p.OrderID, p)
	if !wanted {
		return consumer.Effects{}, nil
	}
	return consumer.Publish(fulfilment.PaymentDeclined{OrderID: p.OrderID, Reason: p.Reason}), nil
}

// giveBack requests the refund of a charge from the provider.
func giveBack(s *State, p Payment) (consumer.Effects, error) {
	p.State = Refunding
	s.Payments.Set(p.OrderID, p)
	return consumer.Request(Refund{OrderID: p.OrderID, Amount: p.Amount,
		Currency: p.Currency}), nil
}

// refunded closes the refund.
func refunded(s *State, e events.Of[RefundSucceeded]) (consumer.Effects, error) {
	p, _ := s.Payments.Get(e.Data.OrderID)
	if p.State != Refunding {
		return consumer.Effects{}, nil
	}
	p.State, p.Reason, p.UpdatedAt = Refunded, "", e.Time
	s.Payments.Set(p.OrderID, p)
	return consumer.Publish(fulfilment.PaymentRefunded{OrderID: p.OrderID, Customer: p.Customer,
		Amount: p.Amount, Currency: p.Currency}), nil
}

// refused leaves the payment in a state that a person must resolve; no service waits for it.
func refused(s *State, e events.Of[RefundWasRefused]) (consumer.Effects, error) {
	p, _ := s.Payments.Get(e.Data.OrderID)
	if p.State == Refunding {
		p.State, p.Reason, p.UpdatedAt = RefundRefused, e.Data.Reason, e.Time
		s.Payments.Set(p.OrderID, p)
	}
	return consumer.Effects{}, nil
}

// refundAgain requests the refund again, under a new idempotency key: the old one stays refused.
func refundAgain(s *State, e events.Of[RefundAgain]) (consumer.Effects, error) {
	p, known := s.Payments.Get(e.Data.OrderID)
	switch {
	case !known || p.State == Void:
		return consumer.Effects{}, consumer.Refuse(consumer.NotFound,
			"there is no payment for order %s", e.Data.OrderID)
	case p.State != RefundRefused:
		return consumer.Effects{}, consumer.Refuse(consumer.Conflict,
			"the payment for order %s is %s: no refund of it was refused", e.Data.OrderID, p.State)
	}
	p.UpdatedAt = e.Time
	return giveBack(s, p)
}
