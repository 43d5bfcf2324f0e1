package shipping

import (
	"net/http"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/events/fulfilment"
	"github.com/quadrille-go/quadrille/internal/web"
)

// A carrier answers late, or never. So a shipment that is booked with one has states in between,
// and what comes meanwhile is noted in them: an order that is cancelled while its booking is under
// way is recalled when it was confirmed, and not before.

// RecallAgain is a person's command, once the reason of a refusal is repaired.
type RecallAgain struct{ OrderID string }

func (RecallAgain) EventType() string { return "shipping.recall_again" }
func (c RecallAgain) Subject() string { return c.OrderID }

// booked schedules what the carrier has confirmed, or recalls what nobody wants any more.
func booked(s *State, e events.Of[fulfilment.BookingConfirmed]) []events.Payload {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	shipment.UpdatedAt = e.Time
	switch shipment.State {
	case Booking:
		shipment.State = Scheduled
		s.Shipments.Set(shipment.OrderID, shipment)
		return []events.Payload{fulfilment.ShipmentScheduled{OrderID: shipment.OrderID,
			Country: shipment.Address.V.Country}}
	case Unwanted:
		return recall(s, shipment)
	}
	return nil
}

// notBooked fails the shipment; an order that is cancelled already need not hear of it.
func notBooked(s *State, e events.Of[fulfilment.BookingRefused]) []events.Payload {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	wanted := shipment.State == Booking
	if !wanted && shipment.State != Unwanted {
		return nil
	}
	shipment.State, shipment.Reason, shipment.UpdatedAt = Failed, e.Data.Reason, e.Time
	s.Shipments.Set(shipment.OrderID, shipment)
	if !wanted {
		return nil
	}
	return []events.Payload{fulfilment.ShipmentFailed{OrderID: shipment.OrderID,
		Reason: shipment.Reason}}
}

func recall(s *State, shipment Shipment) []events.Payload {
	shipment.State = Recalling
	s.Shipments.Set(shipment.OrderID, shipment)
	return []events.Payload{fulfilment.RecallRequested{OrderID: shipment.OrderID}}
}

// recalled closes the recall.
func recalled(s *State, e events.Of[fulfilment.RecallSucceeded]) []events.Payload {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	if shipment.State != Recalling {
		return nil
	}
	shipment.State, shipment.Reason, shipment.UpdatedAt = Cancelled, "", e.Time
	s.Shipments.Set(shipment.OrderID, shipment)
	return []events.Payload{fulfilment.ShipmentCancelled{OrderID: shipment.OrderID}}
}

// notRecalled leaves the shipment where a person finds it; nobody else waits for it.
func notRecalled(s *State, e events.Of[fulfilment.RecallRefused]) []events.Payload {
	shipment, _ := s.Shipments.Get(e.Data.OrderID)
	if shipment.State == Recalling {
		shipment.State, shipment.Reason, shipment.UpdatedAt = RecallRefused, e.Data.Reason, e.Time
		s.Shipments.Set(shipment.OrderID, shipment)
	}
	return nil
}

// recallAgain asks once more, under a new idempotency key: the old one would be refused for ever.
func recallAgain(s *State, e events.Of[RecallAgain]) []events.Payload {
	shipment, known := s.Shipments.Get(e.Data.OrderID)
	switch {
	case !known || shipment.State == Void || shipment.State == Waiting:
		return []events.Payload{web.Refusal{Status: http.StatusNotFound,
			Detail: "there is no shipment for order " + e.Data.OrderID, About: e.Data.OrderID}}
	case shipment.State != RecallRefused:
		return []events.Payload{web.Refusal{Status: http.StatusConflict,
			Detail: "the shipment for order " + e.Data.OrderID + " is " + shipment.State +
				": no recall of it was refused", About: e.Data.OrderID}}
	}
	shipment.UpdatedAt = e.Time
	return recall(s, shipment)
}
