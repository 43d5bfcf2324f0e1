package main

import (
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// The states of a trip. A trip that is being paid is decided by the answer of the payment and by
// nothing else, so that a cancellation never has to return money.
const (
	Requested = "requested"
	Paying    = "paying"
	Confirmed = "confirmed"
	Cancelled = "cancelled"
)

// Trip is a trip and what is known about it.
type Trip struct {
	ID     string `db:"id"`
	Amount int64  `db:"amount"`
	State  string `db:"state"`
	Room   bool   `db:"room"` // is reserved
	Seat   bool   `db:"seat"` // is reserved
	Reason string `db:"reason"`
}

// TripState is the working set of trips.
type TripState struct {
	Trips consumer.Rows[string, Trip] `table:"trips" key:"id"`
}

// trips returns the part of trips in the choreography.
func trips() consumer.Participant[TripState] {
	return consumer.Participant[TripState]{
		Name:  "trips",
		Locks: func(s *TripState, e events.Event) { s.Trips.Lock(e.Data.Subject()) },
		React: []consumer.Reaction[TripState]{
			consumer.On(book), consumer.On(roomReserved), consumer.On(seatReserved),
			consumer.On(roomRejected), consumer.On(seatRejected),
			consumer.On(paid), consumer.On(declined), consumer.On(expire),
		},
	}
}

// book begins a trip and sets its deadline. It refuses an id that exists.
func book(s *TripState, e events.Of[Book]) (consumer.Effects, error) {
	if _, exists := s.Trips.Get(e.Data.Trip); exists {
		return consumer.Effects{}, consumer.Refuse(consumer.Conflict, "trip %s exists", e.Data.Trip)
	}
	s.Trips.Set(e.Data.Trip, Trip{ID: e.Data.Trip, Amount: e.Data.Amount, State: Requested})
	return consumer.Publish(e.Data.TripRequested).
		And(consumer.Schedule(decideWithin, Expire{Trip: e.Data.Trip})), nil
}

func roomReserved(s *TripState, e events.Of[RoomReserved]) (consumer.Effects, error) {
	return reserved(s, e.Data.Trip, func(trip *Trip) { trip.Room = true })
}

func seatReserved(s *TripState, e events.Of[SeatReserved]) (consumer.Effects, error) {
	return reserved(s, e.Data.Trip, func(trip *Trip) { trip.Seat = true })
}

// reserved notes what is reserved, and requests the payment when nothing is missing.
func reserved(s *TripState, id string, note func(trip *Trip)) (consumer.Effects, error) {
	trip, known := s.Trips.Get(id)
	if !known || trip.State != Requested {
		return consumer.Effects{}, nil
	}
	note(&trip)
	var effects consumer.Effects
	if trip.Room && trip.Seat {
		trip.State = Paying
		effects = consumer.Request(Pay{Trip: id, Amount: trip.Amount})
	}
	s.Trips.Set(id, trip)
	return effects, nil
}

func roomRejected(s *TripState, e events.Of[RoomRejected]) (consumer.Effects, error) {
	return cancel(s, e.Data.Trip, Requested, "the hotel has no room")
}

func seatRejected(s *TripState, e events.Of[SeatRejected]) (consumer.Effects, error) {
	return cancel(s, e.Data.Trip, Requested, "the flight has no seat")
}

// expire is the reaction to the deadline. It changes only a trip that is not decided.
func expire(s *TripState, e events.Of[Expire]) (consumer.Effects, error) {
	return cancel(s, e.Data.Trip, Requested, "it was not decided in time")
}

func declined(s *TripState, e events.Of[Declined]) (consumer.Effects, error) {
	return cancel(s, e.Data.Trip, Paying, e.Data.Reason)
}

func paid(s *TripState, e events.Of[Paid]) (consumer.Effects, error) {
	trip, known := s.Trips.Get(e.Data.Trip)
	if !known || trip.State != Paying {
		return consumer.Effects{}, nil
	}
	trip.State = Confirmed
	s.Trips.Set(trip.ID, trip)
	return consumer.Publish(TripConfirmed{Trip: trip.ID}), nil
}

// cancel cancels a trip if it is in the given state.
func cancel(s *TripState, id, from, reason string) (consumer.Effects, error) {
	trip, known := s.Trips.Get(id)
	if !known || trip.State != from {
		return consumer.Effects{}, nil
	}
	trip.State, trip.Reason = Cancelled, reason
	s.Trips.Set(id, trip)
	return consumer.Publish(TripCancelled{Trip: id, Reason: reason}), nil
}
