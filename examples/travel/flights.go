package main

import (
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// Seat is a trip's reservation.
type Seat struct {
	Trip   string `db:"trip"`
	Flight string `db:"flight"`
	State  string `db:"state"`
}

// Flight is a flight and the number of its free seats.
type Flight struct {
	Name string `db:"name"`
	Free int    `db:"free"`
}

// FlightState is the working set of flights. Rows are locked in the order of the fields.
type FlightState struct {
	Seats   consumer.Rows[string, Seat]   `table:"seats" key:"trip"`
	Flights consumer.Rows[string, Flight] `table:"flights" key:"name"`
}

// flights returns the part of flights in the choreography.
func flights() consumer.Participant[FlightState] {
	return consumer.Participant[FlightState]{Name: "flights", Locks: seatLocks,
		React: []consumer.Reaction[FlightState]{consumer.On(reserveSeat), consumer.On(releaseSeat)}}
}

// seatLocks names the rows that an event may change. It is called again when rows have been loaded,
// so that the row of a seat can name the row of its flight.
func seatLocks(s *FlightState, e events.Event) {
	s.Seats.Lock(e.Data.Subject())
	if requested, ok := e.Data.(TripRequested); ok {
		s.Flights.Lock(requested.Flight)
	}
	if seat, ok := s.Seats.Loaded(e.Data.Subject()); ok && seat.State == Reserved {
		s.Flights.Lock(seat.Flight)
	}
}

func reserveSeat(s *FlightState, e events.Of[TripRequested]) (consumer.Effects, error) {
	if _, known := s.Seats.Get(e.Data.Trip); known {
		return consumer.Effects{}, nil // it is cancelled already
	}
	seat := Seat{Trip: e.Data.Trip, Flight: e.Data.Flight, State: Rejected}
	flight, known := s.Flights.Get(e.Data.Flight)
	if !known || flight.Free == 0 {
		s.Seats.Set(seat.Trip, seat)
		return consumer.Publish(SeatRejected{Trip: seat.Trip}), nil
	}
	flight.Free--
	seat.State = Reserved
	s.Flights.Set(flight.Name, flight)
	s.Seats.Set(seat.Trip, seat)
	return consumer.Publish(SeatReserved{Trip: seat.Trip}), nil
}

// releaseSeat is the compensation of reserveSeat.
func releaseSeat(s *FlightState, e events.Of[TripCancelled]) (consumer.Effects, error) {
	seat, known := s.Seats.Get(e.Data.Trip)
	switch {
	case !known:
		s.Seats.Set(e.Data.Trip, Seat{Trip: e.Data.Trip, State: Void})
		return consumer.Effects{}, nil
	case seat.State != Reserved:
		return consumer.Effects{}, nil
	}
	flight, _ := s.Flights.Get(seat.Flight)
	flight.Free++
	seat.State = Released
	s.Flights.Set(flight.Name, flight)
	s.Seats.Set(seat.Trip, seat)
	return consumer.Publish(SeatReleased{Trip: seat.Trip}), nil
}
