package main

import (
	"fmt"

	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// situation is what one trip meets: free rooms or none, free seats or none, and a provider that
// accepts or declines.
type situation struct {
	name         string
	rooms, seats int
	declines     bool
}

func situations() []situation {
	return []situation{{"free", 1, 1, false}, {"no room", 0, 1, false}, {"no seat", 1, 0, false},
		{"nothing free", 0, 0, false}, {"the payment is declined", 1, 1, true}}
}

// model is one trip in a situation, for package check to run through every interleaving of its
// messages.
func model(of situation) (check.Model, error) {
	hotel, flight := consumer.Memory{}, consumer.Memory{}
	if err := hotel.Put("hotels", "ritz", Hotel{Name: "ritz", Free: of.rooms}); err != nil {
		return check.Model{}, err
	}
	if err := flight.Put("flights", "BA1", Flight{Name: "BA1", Free: of.seats}); err != nil {
		return check.Model{}, err
	}
	return check.Model{
		Topology: choreography(),
		Reactors: []consumer.Reactor{trips().Reactor(), hotels().Reactor(), flights().Reactor()},
		Begin:    map[string]consumer.Memory{"hotels": hotel, "flights": flight},
		Commands: []check.Command{{To: "trips", Payload: Book{Amount: 100,
			TripRequested: TripRequested{Trip: "t-1", Hotel: "ritz", Flight: "BA1"}}}},
		Duplicates: 2,
		Outside: map[string]func(consumer.Memory, events.Payload) (events.Payload, error){
			"trips.pay": func(_ consumer.Memory, request events.Payload) (events.Payload, error) {
				if of.declines {
					return Declined{Trip: request.Subject(), Reason: "declined"}, nil
				}
				return Paid{Trip: request.Subject()}, nil
			},
		},
		AtRest: func(s check.System) error { return agree(s, of.rooms, of.seats) },
		Outcome: func(s check.System) string {
			var trip Trip
			s.Row("trips", "trips", "t-1", &trip)
			return trip.State + " " + trip.Reason
		},
	}, nil
}

// agree is the invariant at rest: a confirmed trip has a room and a seat, and any other trip is
// cancelled and has neither.
func agree(s check.System, rooms, seats int) error {
	var trip Trip
	var hotel Hotel
	var flight Flight
	s.Row("trips", "trips", "t-1", &trip)
	s.Row("hotels", "hotels", "ritz", &hotel)
	s.Row("flights", "flights", "BA1", &flight)
	takenRooms, takenSeats := rooms-hotel.Free, seats-flight.Free
	confirmed := trip.State == Confirmed && takenRooms == 1 && takenSeats == 1
	cancelled := trip.State == Cancelled && takenRooms == 0 && takenSeats == 0
	if !confirmed && !cancelled {
		return fmt.Errorf("the trip is %s, with %d rooms and %d seats", trip.State, takenRooms,
			takenSeats)
	}
	return nil
}

// explored explores every situation, for the command check.
func explored() (cli.Checked, error) {
	all := cli.Checked{Complete: true}
	var models []check.Report
	for _, situation := range situations() {
		m, err := model(situation)
		if err != nil {
			return cli.Checked{}, err
		}
		r, err := check.Explore(m)
		if err != nil {
			return cli.Checked{}, err
		}
		models = append(models, r)
		all.States += r.States
		all.TerminalOutcomes += len(r.TerminalOutcomes)
		all.Violations += len(r.Violations)
		all.Seconds += r.Seconds
		all.Complete = all.Complete && r.Complete
		all.Lines = append(all.Lines, fmt.Sprintf("%s: %d states", situation.name, r.States))
		for _, v := range r.Violations {
			all.Lines = append(all.Lines, v.String())
		}
	}
	all.Models = models
	return all, nil
}
