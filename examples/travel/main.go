// Command travel is a travel booking of three services: trips, hotels and flights. A trip needs a
// room and a seat. Hotels and flights reserve them at the same time, each in its own database.
// When both have answered, trips takes the payment, which is a call to the outside. If one of them
// has nothing left, if the payment is declined, or if the trip is not decided in time, the trip is
// cancelled, and the other services take back what they have reserved. No service asks another one
// and waits for its answer.
//
// In production the services would be three programs. Here one program runs all of them, so that
// it is simple to try. On servers of your own, set QUADRILLE_AMQP_URL and
// QUADRILLE_TRIPS_DATABASE_URL, QUADRILLE_HOTELS_DATABASE_URL, QUADRILLE_FLIGHTS_DATABASE_URL
// instead of the first two lines:
//
//	quadrille up --servers --detach --database trips,hotels,flights
//	. .quadrille/env
//	export QUADRILLE_TRIPS_URL=http://127.0.0.1:8080/trips
//	export QUADRILLE_HOTELS_URL=http://127.0.0.1:8080/hotels
//	export QUADRILLE_FLIGHTS_URL=http://127.0.0.1:8080/flights
//	go build -o travel . && ./travel check && ./travel topology apply
//	./travel serve & # it listens on 127.0.0.1:8080
//	./travel book --hotel ritz --flight BA1 --amount 50000
//	./travel trace ID # the id that book has printed
package main

import (
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
)

func main() {
	cli.Main(cli.App{
		Name: "travel", Topology: choreography(), Catalogue: catalogue(), Check: explored,
		Commands: commands,
	})
}

// catalogue has a sample of each public event, for travel publish.
func catalogue() events.Catalogue {
	return events.NewCatalogue(
		TripRequested{Trip: "t-1", Hotel: "ritz", Flight: "BA1"},
		TripConfirmed{Trip: "t-1"}, TripCancelled{Trip: "t-1", Reason: "no room"},
		RoomReserved{Trip: "t-1"}, RoomRejected{Trip: "t-1"}, RoomReleased{Trip: "t-1"},
		SeatReserved{Trip: "t-1"}, SeatRejected{Trip: "t-1"}, SeatReleased{Trip: "t-1"},
	)
}
