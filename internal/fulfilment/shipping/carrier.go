package shipping

import (
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

// A carrier answers late, or never. So a shipment that is booked with one has states in between,
// and what comes meanwhile is noted in them: an order that is cancelled while its booking is under
// way is recalled when it was confirmed, and not before.

// RecallAgain is a person's command, once the reason of a refusal is repaired.
type RecallAgain struct{ OrderID string }

func (RecallAgain) EventType() string { return "shipping.recall_again" }
func (c RecallAgain) Subject() string { return c.OrderID }

// booked schedules what the carrier has confirmed, or recalls what is no longer wanted.
func booked(s *State, e events.Of[BookingConfirmed]) (consumer.Effects, error) {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	shipment.UpdatedAt = e.Time
	switch shipment.State {
	case Booking:
		shipment.State = Scheduled
		s.Shipments.Set(shipment.OrderID, shipment)
		return consumer.Publish(fulfilment.ShipmentScheduled{OrderID: shipment.OrderID,
			Country: shipment.Address.V.Country}), nil
	case Unwanted:
		return recall(s, shipment)
	}
	return consumer.Effects{}, nil
}

// notBooked fails the shipment; of an order that is cancelled already nothing is published.
func notBooked(s *State, e events.Of[BookingRefused]) (consumer.Effects, error) {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	wanted := shipment.State == Booking
	if !wanted && shipment.State != Unwanted {
		return consumer.Effects{}, nil
	}
	shipment.State, shipment.Reason, shipment.UpdatedAt = Failed, e.Data.Reason, e.Time
	s.Shipments.Set(shipment.OrderID, shipment)
	if !wanted {
		return consumer.Effects{}, nil
	}
	return consumer.Publish(fulfilment.ShipmentFailed{OrderID: shipment.OrderID,
		Reason: shipment.Reason}), nil
}

func recall(s *State, shipment Shipment) (consumer.Effects, error) {
	shipment.State = Recalling
	s.Shipments.Set(shipment.OrderID, shipment)
	return consumer.Request(Recall{OrderID: shipment.OrderID}), nil
}

// recalled closes the recall.
func recalled(s *State, e events.Of[RecallSucceeded]) (consumer.Effects, error) {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	if shipment.State != Recalling {
		return consumer.Effects{}, nil
	}
	shipment.State, shipment.Reason, shipment.UpdatedAt = Cancelled, "", e.Time
	s.Shipments.Set(shipment.OrderID, shipment)
	return consumer.Publish(fulfilment.ShipmentCancelled{OrderID: shipment.OrderID}), nil
}

// notRecalled leaves the shipment in a state that a person must resolve; no service waits for it.
func notRecalled(s *State, e events.Of[RecallWasRefused]) (consumer.Effects, error) {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	if shipment.State == Recalling {
		shipment.State, shipment.Reason, shipment.UpdatedAt = RecallRefused, e.Data.Reason, e.Time
		s.Shipments.Set(shipment.OrderID, shipment)
	}
	return consumer.Effects{}, nil
}

// recallAgain requests the recall again, under a new idempotency key: the old one stays refused.
func recallAgain(s *State, e events.Of[RecallAgain]) (consumer.Effects, error) {
	shipment, known := s.Shipments.Get(e.Data.OrderID)
	switch {
	case !known || shipment.State == Void || shipment.State == Waiting:
		return consumer.Effects{}, consumer.Refuse(consumer.NotFound,
			"there is no shipment for order %s", e.Data.OrderID)
	case shipment.State != RecallRefused:
		return consumer.Effects{}, consumer.Refuse(consumer.Conflict,
			"the shipment for order %s is %s: no recall of it was refused", e.Data.OrderID,
			shipment.State)
	}
	shipment.UpdatedAt = e.Time
	return recall(s, shipment)
}
