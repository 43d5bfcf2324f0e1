package main

import (
	"time"

	"github.com/quadrille-go/quadrille/topology"
)

// decideWithin is the deadline of a trip.
const decideWithin = 15 * time.Minute

// choreography declares what each service does. Exchanges, queues, bindings and permissions follow
// from it.
func choreography() topology.Topology {
	return topology.Topology{Name: "travel", Services: []topology.Service{
		tripsPart(), hotelsPart(), flightsPart(),
	}}
}

func tripsPart() topology.Service {
	cancelled := []string{"trip.cancelled"}
	pay := []string{"trips.pay"}
	return topology.Service{
		Name: "trips",
		Commands: []topology.Command{
			{Type: "trips.book", Does: "book", Publishes: []string{"trip.requested"}},
			{Type: "trips.expire", Does: "expire", Publishes: cancelled, Undoes: "book",
				After: decideWithin},
			{Type: "trips.paid", Does: "confirm", Publishes: []string{"trip.confirmed"}},
			{Type: "trips.declined", Does: "cancel", Publishes: cancelled, Undoes: "book"},
		},
		Calls: []topology.Call{{Type: "trips.pay", Does: "take the payment",
			Answers: []string{"trips.paid", "trips.declined"}}},
		Reacts: []topology.Reaction{
			{Handles: "room.reserved", Does: "pay when both are reserved", Requests: pay},
			{Handles: "seat.reserved", Does: "pay when both are reserved", Requests: pay},
			{Handles: "room.rejected", Does: "cancel", Publishes: cancelled, Undoes: "book"},
			{Handles: "seat.rejected", Does: "cancel", Publishes: cancelled, Undoes: "book"},
		},
	}
}

func hotelsPart() topology.Service {
	return topology.Service{
		Name: "hotels",
		Reacts: []topology.Reaction{
			{Handles: "trip.requested", Does: "reserve",
				Publishes: []string{"room.reserved", "room.rejected"}},
			{Handles: "trip.cancelled", Does: "release", Publishes: []string{"room.released"},
				Undoes: "reserve"},
		},
	}
}

func flightsPart() topology.Service {
	return topology.Service{
		Name: "flights",
		Reacts: []topology.Reaction{
			{Handles: "trip.requested", Does: "reserve",
				Publishes: []string{"seat.reserved", "seat.rejected"}},
			{Handles: "trip.cancelled", Does: "release", Publishes: []string{"seat.released"},
				Undoes: "reserve"},
		},
	}
}
