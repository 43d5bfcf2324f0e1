package shipping

import (
	"context"
	"errors"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/outside"
)

var errNoCarrier = errors.New("no carrier is configured: set QUADRILLE_SHIPPING_CARRIER_URL")

// desk answers requests with the answers of the carrier. The id of the request is the idempotency
// key, so that however often a call is made, there is one booking.
type desk struct{ peer *outside.Peer }

func (d desk) handlers() []consumer.Handler {
	return []consumer.Handler{consumer.Call(d.book), consumer.Call(d.recall)}
}

func (d desk) book(ctx context.Context, e events.Of[Book]) (events.Payload,
	error) {
	reason, err := d.call(ctx, "/bookings", e.Event)
	if err != nil {
		return nil, err
	}
	if reason != "" {
		return BookingRefused{OrderID: e.Data.OrderID, Reason: reason}, nil
	}
	return BookingConfirmed{OrderID: e.Data.OrderID}, nil
}

func (d desk) recall(ctx context.Context, e events.Of[Recall]) (events.Payload,
	error) {
	reason, err := d.call(ctx, "/recalls", e.Event)
	if err != nil {
		return nil, err
	}
	if reason != "" {
		return RecallWasRefused{OrderID: e.Data.OrderID, Reason: reason}, nil
	}
	return RecallSucceeded{OrderID: e.Data.OrderID}, nil
}

// call returns the reason of a refusal, empty for none.
func (d desk) call(ctx context.Context, path string, e events.Event) (reason string, err error) {
	if d.peer == nil {
		return "", errNoCarrier
	}
	err = d.peer.Post(ctx, path, e.ID, e.Data)
	if no := (outside.RefusedError{}); errors.As(err, &no) {
		return fulfilment.ShortReason(no.Reason), nil
	}
	return "", err
}
