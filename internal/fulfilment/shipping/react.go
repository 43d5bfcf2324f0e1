package shipping

import (
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

// Countries are those that are served unless the service is configured otherwise.
var Countries = []string{
	"AT", "AU", "BE", "BG", "CA", "CH", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GB", "GR",
	"HR", "HU", "IE",
	"IS", "IT", "JP", "LI", "LT", "LU", "LV", "MT", "NL", "NO", "NZ", "PL", "PT", "RO", "SE", "SI",
	"SK", "US",
}

// carrier knows which countries are served, and whether parcels are booked with an outside world.
type carrier struct {
	serves map[string]bool
	books  bool
}

// Participant is the part of shipping in the choreography, for a carrier that serves the given
// countries. If books is false, no carrier is called, and parcels are scheduled at once.
func Participant(books bool, countries ...string) consumer.Participant[State] {
	c := carrier{serves: map[string]bool{}, books: books}
	for _, country := range countries {
		c.serves[country] = true
	}
	return consumer.Participant[State]{Name: "shipping", Locks: locks,
		React: []consumer.Reaction[State]{
			consumer.On(c.remember), consumer.On(c.reserved), consumer.On(cancel),
			consumer.On(booked), consumer.On(notBooked), consumer.On(recalled), consumer.On(notRecalled),
			consumer.On(recallAgain),
		}}
}

func locks(s *State, e events.Event) { s.Shipments.Lock(e.Data.Subject()) }

// remember keeps the address, and schedules if the reservation came first.
func (c carrier) remember(s *State, e events.Of[fulfilment.OrderPlaced]) (consumer.Effects, error) {
	shipment, known := s.Shipments.Get(e.Data.OrderID)
	if known && (shipment.State != Waiting || shipment.Address.V.Country != "") {
		return consumer.Effects{}, nil
	}
	shipment.OrderID, shipment.State, shipment.Address.V, shipment.UpdatedAt = e.Data.OrderID, Waiting,
		e.Data.Address, e.Time
	return c.schedule(s, shipment)
}

// reserved schedules, or notes that it may be scheduled as soon as the address is known.
func (c carrier) reserved(s *State, e events.Of[fulfilment.StockReserved]) (consumer.Effects,
	error) {
	shipment, known := s.Shipments.Get(e.Data.OrderID)
	if known && shipment.State != Waiting {
		return consumer.Effects{}, nil
	}
	shipment.OrderID, shipment.State, shipment.Reserved, shipment.UpdatedAt = e.Data.OrderID, Waiting,
		true, e.Time
	return c.schedule(s, shipment)
}

// schedule sends the parcel, or refuses, once the address and the reservation are known.
func (c carrier) schedule(s *State, shipment Shipment) (consumer.Effects, error) {
	country := shipment.Address.V.Country
	var effects consumer.Effects
	switch {
	case !shipment.Reserved || country == "":
	case !c.serves[country]:
		shipment.State, shipment.Reason = Failed, fulfilment.ReasonNotServed+": "+country
		effects = consumer.Publish(fulfilment.ShipmentFailed{OrderID: shipment.OrderID,
			Reason: shipment.Reason})
	case c.books:
		shipment.State, shipment.Booked = Booking, true
		effects = consumer.Request(Book{OrderID: shipment.OrderID, Address: shipment.Address.V})
	default:
		shipment.State = Scheduled
		effects = consumer.Publish(fulfilment.ShipmentScheduled{OrderID: shipment.OrderID,
			Country: country})
	}
	s.Shipments.Set(shipment.OrderID, shipment)
	return effects, nil
}

// cancel stops the parcel, once. When there is none yet it leaves a tombstone, so that a late event
// does not schedule one.
func cancel(s *State, e events.Of[fulfilment.OrderCancelled]) (consumer.Effects, error) {
	id := e.Data.OrderID
	shipment, known := s.Shipments.Get(id)
	switch {
	case !known || shipment.State == Waiting:
		s.Shipments.Set(id, Shipment{OrderID: id, State: Void, UpdatedAt: e.Time})
		return consumer.Effects{}, nil
	case shipment.State == Booking: // it is recalled when it is confirmed
		shipment.State, shipment.UpdatedAt = Unwanted, e.Time
		s.Shipments.Set(id, shipment)
		return consumer.Effects{}, nil
	case shipment.State != Scheduled:
		return consumer.Effects{}, nil
	case shipment.Booked:
		shipment.UpdatedAt = e.Time
		return recall(s, shipment)
	}
	shipment.State, shipment.UpdatedAt = Cancelled, e.Time
	s.Shipments.Set(id, shipment)
	return consumer.Publish(fulfilment.ShipmentCancelled{OrderID: id}), nil
}
