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
