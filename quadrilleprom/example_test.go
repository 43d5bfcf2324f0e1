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

// The middleware belongs to the configuration, and the registry of a service is made of the service
// itself. So there are two registries, and one page with both.
func Example() {
	durations := prometheus.NewRegistry()
	members, err := quadrille.New(quadrille.Config{
		Name:      "members",
		Publishes: []events.Payload{UserJoined{}},
		Handlers: []consumer.Handler{consumer.Handle(
			func(context.Context, *sqlx.Tx, events.Of[UserJoined]) error { return nil })},
		Database:   "postgres://127.0.0.1:5432/members?sslmode=disable",
		AMQP:       "amqp://127.0.0.1:5672/",
		Middleware: []consumer.Middleware{quadrilleprom.Durations(durations)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	all := prometheus.Gatherers{quadrilleprom.Registry(members), durations}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{}))

	families, err := all.Gather()
	fmt.Println(families[0].GetName(), err)
	// Output: quadrille_consumer_batches_total <nil>
}
