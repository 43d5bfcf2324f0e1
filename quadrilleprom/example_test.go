package quadrilleprom_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilleprom"
)

// UserJoined is the event of the example.
type UserJoined struct{ ID string }

func (UserJoined) EventType() string { return "user.joined" }
func (u UserJoined) Subject() string { return u.ID }

// The middleware belongs to the configuration of a service, and the collector to the service
// itself. Both are registered where the program likes.
func Example() {
	registry := prometheus.NewRegistry()
	members, err := quadrille.New(quadrille.Config{
		Name:      "members",
		Publishes: []events.Payload{UserJoined{}},
		Handlers: []consumer.Handler{consumer.Handle(
			func(context.Context, *sqlx.Tx, events.Of[UserJoined]) error { return nil })},
		Database:   "postgres://127.0.0.1:5432/members?sslmode=disable",
		AMQP:       "amqp://127.0.0.1:5672/",
		Middleware: []consumer.Middleware{quadrilleprom.Durations(registry)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	registry.MustRegister(quadrilleprom.Collector(members))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	families, err := registry.Gather()
	fmt.Println(families[0].GetName(), err)
	// Output: quadrille_broker_blocked <nil>
}
