package payments

import (
	"context"
	"errors"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/resilience"
)

// The rate at which one customer's cards are charged, by all replicas together: a customer who
// tries cards out must not use up the provider's capacity.
const (
	chargeRate  = 20 // a second
	chargeBurst = 100
	// databaseTrouble is the pause before a retry after an error of our own database.
	databaseTrouble = time.Second
)

var errNoProvider = errors.New("no payment provider is configured: set " +
	"QUADRILLE_PAYMENTS_PROVIDER_URL")

// provider answers requests with the answers of the payment provider. The id of the request is the
// idempotency key, so that however often a call is made, the money moves once.
type provider struct {
	peer    *outside.Peer // nil: there is none
	service *quadrille.Service
}

func (p *provider) handlers() []consumer.Handler {
	return []consumer.Handler{consumer.Call(p.charge), consumer.Call(p.refund)}
}

func (p *provider) charge(ctx context.Context,
	e events.Of[Charge]) (events.Payload, error) {
	c := e.Data
	if p.peer == nil { // there was one when the call was requested, and its outcome is unknown
		return nil, errNoProvider
	}
	db, err := p.service.DB(ctx)
	if err != nil {
		return nil, consumer.RetryAfter(err, databaseTrouble)
	}
	limit := resilience.Limit{DB: db, Rate: chargeRate, Burst: chargeBurst}
	err = p.peer.Post(ctx, "/charges", e.ID, c, limit.Guard("charges of "+c.Customer))
	if no := (outside.RefusedError{}); errors.As(err, &no) {
		return ChargeDeclined{OrderID: c.OrderID, Reason: fulfilment.ShortReason(no.Reason)},
			nil
	}
	if err != nil {
		return nil, err
	}
	return ChargeSucceeded{OrderID: c.OrderID}, nil
}

func (p *provider) refund(ctx context.Context,
	e events.Of[Refund]) (events.Payload, error) {
	if p.peer == nil {
		return nil, errNoProvider
	}
	err := p.peer.Post(ctx, "/refunds", e.ID, e.Data)
	if no := (outside.RefusedError{}); errors.As(err, &no) {
		return RefundWasRefused{OrderID: e.Data.OrderID,
			Reason: fulfilment.ShortReason(no.Reason)}, nil
	}
	if err != nil {
		return nil, err
	}
	return RefundSucceeded{OrderID: e.Data.OrderID}, nil
}
