package main

import "errors"

// TripRequested is the event that begins a trip.
type TripRequested struct {
	Trip   string `json:"trip"`
	Hotel  string `json:"hotel"`
	Flight string `json:"flight"`
}

// EventType is the type of the event, which is also its routing key.
func (TripRequested) EventType() string { return "trip.requested" }

// Subject is the id of the trip.
func (p TripRequested) Subject() string { return p.Trip }

// Validate refuses a request that no service could fulfil. It runs when the event is published and
// again when it is received.
func (p TripRequested) Validate() error {
	if p.Trip == "" || p.Hotel == "" || p.Flight == "" {
		return errors.New("a trip needs an id, a hotel and a flight")
	}
	return nil
}

// The other events that the services publish. The JSON of a payload is a contract between services.
type (
	TripConfirmed struct {
		Trip string `json:"trip"`
	}
	TripCancelled struct {
		Trip   string `json:"trip"`
		Reason string `json:"reason"`
	}
	RoomReserved struct {
		Trip string `json:"trip"`
	}
	RoomRejected struct {
		Trip string `json:"trip"`
	}
	RoomReleased struct {
		Trip string `json:"trip"`
	}
	SeatReserved struct {
		Trip string `json:"trip"`
	}
	SeatRejected struct {
		Trip string `json:"trip"`
	}
	SeatReleased struct {
		Trip string `json:"trip"`
	}
)

func (TripConfirmed) EventType() string { return "trip.confirmed" }
func (TripCancelled) EventType() string { return "trip.cancelled" }
func (RoomReserved) EventType() string  { return "room.reserved" }
func (RoomRejected) EventType() string  { return "room.rejected" }
func (RoomReleased) EventType() string  { return "room.released" }
func (SeatReserved) EventType() string  { return "seat.reserved" }
func (SeatRejected) EventType() string  { return "seat.rejected" }
func (SeatReleased) EventType() string  { return "seat.released" }

func (p TripConfirmed) Subject() string { return p.Trip }
func (p TripCancelled) Subject() string { return p.Trip }
func (p RoomReserved) Subject() string  { return p.Trip }
func (p RoomRejected) Subject() string  { return p.Trip }
func (p RoomReleased) Subject() string  { return p.Trip }
func (p SeatReserved) Subject() string  { return p.Trip }
func (p SeatRejected) Subject() string  { return p.Trip }
func (p SeatReleased) Subject() string  { return p.Trip }

// The messages of trips to itself: a command of a client, the deadline, the request of the outside
// call, and its answers. They never leave the service.
type (
	Book struct {
		TripRequested
		Amount int64 `json:"amount"` // minor units
	}
	Expire struct {
		Trip string `json:"trip"`
	}
	Pay struct {
		Trip   string `json:"trip"`
		Amount int64  `json:"amount"`
	}
	Paid struct {
		Trip string `json:"trip"`
	}
	Declined struct {
		Trip   string `json:"trip"`
		Reason string `json:"reason"`
	}
)

func (Book) EventType() string     { return "trips.book" }
func (Expire) EventType() string   { return "trips.expire" }
func (Pay) EventType() string      { return "trips.pay" }
func (Paid) EventType() string     { return "trips.paid" }
func (Declined) EventType() string { return "trips.declined" }

func (p Expire) Subject() string   { return p.Trip }
func (p Pay) Subject() string      { return p.Trip }
func (p Paid) Subject() string     { return p.Trip }
func (p Declined) Subject() string { return p.Trip }
