package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// A reaction is a pure function, so that its test needs no server.
func TestTheLastRoomIsReservedOnce(t *testing.T) {
	requested := TripRequested{Trip: "t-1", Hotel: "ritz", Flight: "BA1"}
	later := requested
	later.Trip = "t-2"
	quadrilletest.React(t, hotels(), quadrilletest.Case{
		Given: []any{Hotel{Name: "ritz", Free: 1}},
		When:  []events.Payload{requested, later},
		Rows: []any{
			Hotel{Name: "ritz", Free: 0},
			Room{Trip: "t-1", Hotel: "ritz", State: Reserved},
			Room{Trip: "t-2", Hotel: "ritz", State: Rejected},
		},
		Effects: consumer.Publish(RoomReserved{Trip: "t-1"}, RoomRejected{Trip: "t-2"}),
	})
}

// The three services agree on a trip, though the broker is away when it is booked.
func TestATripIsBooked(t *testing.T) {
	t.Parallel()
	servers := quadrilletest.Shared(t)
	broker := servers.VirtualHost(t)
	if err := quadrille.ApplyTopology(t.Context(), broker, choreography()); err != nil {
		t.Fatal(err)
	}
	published := quadrilletest.Record(t, broker, "trips", "hotels", "flights")
	network := quadrilletest.NewProxy(t, broker)
	services, err := newServices(func(name string) string {
		if name == "amqp" {
			return network.URL
		}
		return servers.Database(t)
	}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range services {
		quadrilletest.Run(t, service)
	}
	network.Down()
	book := Book{Amount: 500, TripRequested: TripRequested{Trip: "t-1", Hotel: "ritz", Flight: "BA1"}}
	quadrilletest.WaitFor(t, "the trip is booked", func() (bool, string) {
		_, err := quadrille.Execute(t.Context(), services["trips"], trips(), book)
		return err == nil, fmt.Sprint(err)
	})
	network.Up()
	published.Await("room.reserved", "t-1")
	published.Await("trip.confirmed", "t-1")
}

// An address that is missing is named, with the command that starts servers.
func TestMissingAddressIsNamed(t *testing.T) {
	for missing, want := range map[string]string{"amqp": "QUADRILLE_AMQP_URL is not set\n  start",
		"hotels": "QUADRILLE_HOTELS_DATABASE_URL is not set\n  start", "none": "<nil>"} {
		err := complete(func(name string) string { return strings.TrimSuffix(name, missing) })
		if !strings.HasPrefix(fmt.Sprint(err), want) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// Three services log into one terminal, so each line names its service.
func TestEachLineOfTheLogNamesItsService(t *testing.T) {
	t.Parallel()
	servers := quadrilletest.Shared(t)
	var log bytes.Buffer
	services, err := newServices(func(name string) string {
		if name == "amqp" {
			return "amqp://127.0.0.1:1" // it is away, which is logged
		}
		return servers.Database(t)
	}, zerolog.New(zerolog.SyncWriter(&log)))
	if err != nil {
		t.Fatal(err)
	}
	for name, service := range services {
		stop := quadrilletest.Run(t, service)
		quadrilletest.WaitFor(t, name+" finds no broker", func() (bool, string) {
			said := fmt.Sprint(service.Healthy())
			return strings.Contains(said, "connection refused"), said
		})
		stop()
		if !strings.Contains(log.String(), `"service":"`+name+`"`) {
			t.Errorf("%s has not logged that the broker is away", name)
		}
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, `"service":"`) {
			t.Errorf("which service has logged this? %s", line)
		}
	}
}

// No interleaving of the messages leaves a room or a seat to a trip that is not confirmed.
func TestEveryInterleaving(t *testing.T) {
	for _, s := range situations() {
		t.Run(s.name, func(t *testing.T) {
			m, err := model(s)
			if err != nil {
				t.Fatal(err)
			}
			quadrilletest.Check(t, m)
		})
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
