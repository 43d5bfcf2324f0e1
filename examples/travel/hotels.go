package main

import (
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// The states of what is reserved, at the hotels and at the flights. Void is a tombstone: the
// cancellation has arrived before the request, which must then reserve nothing.
const (
	Reserved = "reserved"
	Rejected = "rejected"
	Released = "released"
	Void     = "void"
)

// Room is a trip's reservation.
type Room struct {
	Trip  string `db:"trip"`
	Hotel string `db:"hotel"`
	State string `db:"state"`
}

// Hotel is a hotel and the number of its free rooms.
type Hotel struct {
	Name string `db:"name"`
	Free int    `db:"free"`
}

// HotelState is the working set of hotels. Rows are locked in the order of the fields.
type HotelState struct {
	Rooms  consumer.Rows[string, Room]  `table:"rooms" key:"trip"`
	Hotels consumer.Rows[string, Hotel] `table:"hotels" key:"name"`
}

// hotels returns the part of hotels in the choreography.
func hotels() consumer.Participant[HotelState] {
	return consumer.Participant[HotelState]{Name: "hotels", Locks: roomLocks,
		React: []consumer.Reaction[HotelState]{consumer.On(reserveRoom), consumer.On(releaseRoom)}}
}

// roomLocks names the rows that an event may change. It is called again when rows have been loaded,
// so that the row of a room can name the row of its hotel.
func roomLocks(s *HotelState, e events.Event) {
	s.Rooms.Lock(e.Data.Subject())
	if requested, ok := e.Data.(TripRequested); ok {
		s.Hotels.Lock(requested.Hotel)
	}
	if room, ok := s.Rooms.Loaded(e.Data.Subject()); ok && room.State == Reserved {
		s.Hotels.Lock(room.Hotel)
	}
}

func reserveRoom(s *HotelState, e events.Of[TripRequested]) (consumer.Effects, error) {
	if _, known := s.Rooms.Get(e.Data.Trip); known {
		return consumer.Effects{}, nil // it is cancelled already
	}
	room := Room{Trip: e.Data.Trip, Hotel: e.Data.Hotel, State: Rejected}
	hotel, known := s.Hotels.Get(e.Data.Hotel)
	if !known || hotel.Free == 0 {
		s.Rooms.Set(room.Trip, room)
		return consumer.Publish(RoomRejected{Trip: room.Trip}), nil
	}
	hotel.Free--
	room.State = Reserved
	s.Hotels.Set(hotel.Name, hotel)
	s.Rooms.Set(room.Trip, room)
	return consumer.Publish(RoomReserved{Trip: room.Trip}), nil
}

// releaseRoom is the compensation of reserveRoom.
func releaseRoom(s *HotelState, e events.Of[TripCancelled]) (consumer.Effects, error) {
	room, known := s.Rooms.Get(e.Data.Trip)
	switch {
	case !known:
		s.Rooms.Set(e.Data.Trip, Room{Trip: e.Data.Trip, State: Void})
		return consumer.Effects{}, nil
	case room.State != Reserved:
		return consumer.Effects{}, nil
	}
	hotel, _ := s.Hotels.Get(room.Hotel)
	hotel.Free++
	room.State = Released
	s.Hotels.Set(hotel.Name, hotel)
	s.Rooms.Set(room.Trip, room)
	return consumer.Publish(RoomReleased{Trip: room.Trip}), nil
}
