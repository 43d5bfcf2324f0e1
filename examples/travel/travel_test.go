package main

import (
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// A reaction is a pure function, so that its test needs no server.
func TestTheLastRoomIsReservedOnce(t *testing.T) {
	memory := consumer.Memory{}
	if err := memory.Put("hotels", "ritz", Hotel{Name: "ritz", Free: 1}); err != nil {
		t.Fatal(err)
	}
	requested := func(trip string) events.Event {
		return events.Cause(events.Event{}, "/trips", time.Now(),
			TripRequested{Trip: trip, Hotel: "ritz", Flight: "BA1"})
	}
	_, results, err := hotels().ApplyTo(memory, requested("t-1"), requested("t-2"))
	if err != nil {
		t.Fatal(err)
	}
	if got := results[0].Effects.Publish[0]; got != (RoomReserved{Trip: "t-1"}) {
		t.Errorf("the first trip: %#v", got)
	}
	if got := results[1].Effects.Publish[0]; got != (RoomRejected{Trip: "t-2"}) {
		t.Errorf("the second trip: %#v", got)
	}
}

// No interleaving of the messages leaves a room or a seat to a trip that is not confirmed.
func TestEveryInterleaving(t *testing.T) {
	checked, err := explored()
	if err != nil {
		t.Fatal(err)
	}
	if checked.Violations > 0 || !checked.Complete {
		t.Errorf("%d violations, complete: %t\n%v", checked.Violations, checked.Complete, checked.Lines)
	}
}

// The deadline cancels a trip that has only a room, and changes nothing once a trip is being paid.
func TestDeadline(t *testing.T) {
	now := time.Now()
	booked := events.Command(Book{TripRequested: TripRequested{Trip: "t-1", Hotel: "ritz",
		Flight: "BA1"}, Amount: 100}, now)
	room := events.Cause(events.Event{}, "/hotels", now, RoomReserved{Trip: "t-1"})
	seat := events.Cause(events.Event{}, "/flights", now, SeatReserved{Trip: "t-1"})
	expired := events.Command(Expire{Trip: "t-1"}, now.Add(decideWithin))

	state, results, err := trips().ApplyTo(consumer.Memory{}, booked, room, expired)
	if err != nil {
		t.Fatal(err)
	}
	if deadlines := results[0].Effects.Schedule; len(deadlines) != 1 ||
		deadlines[0] != (consumer.Deadline{After: decideWithin, Payload: Expire{Trip: "t-1"}}) {
		t.Errorf("book schedules %v", deadlines)
	}
	if trip, _ := state.Trips.Get("t-1"); trip.State != Cancelled {
		t.Errorf("a trip with a room only: %+v", trip)
	}
	state, _, err = trips().ApplyTo(consumer.Memory{}, booked, room, seat, expired)
	if err != nil {
		t.Fatal(err)
	}
	if trip, _ := state.Trips.Get("t-1"); trip.State != Paying {
		t.Errorf("a trip that is being paid: %+v", trip)
	}
}
