package quadrille_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// A monolith joins by its outbox alone: it hears nothing, its own code says some events, and a
// program that does not know this kit inserts the others. Who hears them reacts once to each.
func TestServiceThatOnlyPublishes(t *testing.T) {
	t.Parallel()
	amqp, _ := servertest.Vhost(t)
	consumed := make(chan events.Of[UserJoined], 10)
	monolith, err := quadrille.New(quadrille.Config{Name: "members",
		Publishes: []events.Payload{UserJoined{}}, Database: database(t), AMQP: amqp})
	if err != nil {
		t.Fatal(err)
	}
	says := topology.Topology{Name: "monolith", Services: []topology.Service{
		{Name: "members", Commands: []topology.Command{{Does: "join",
			Publishes: []string{"user.joined"}}}},
	}}
	listener, err := quadrille.New(quadrille.Config{
		Name: "mailing", Database: database(t), AMQP: amqp, Topology: says,
		Handlers: []consumer.Handler{consumer.Handle(func(_ context.Context, _ *sqlx.Tx,
			e events.Of[UserJoined]) error {
			consumed <- e
			return nil
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, monolith)
	run(t, listener)
	t.Cleanup(func() { _, _ = monolith.Close(), listener.Close() })
	quadrilletest.WaitFor(t, "both are connected", func() (bool, string) {
		return monolith.Connected() && listener.Connected(), fmt.Sprint(monolith.Connected(),
			listener.Connected())
	})
	publish(t, monolith, UserJoined{"1", "ada@example.com"})
	db, err := monolith.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := events.NewID()
	db.MustExec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
		VALUES ($1, 'user', '2', 'user.joined',
		'{"ID": "2", "Email": "bob@example.com"}', json_build_object('source', '/members', 'time',
			now()))`, id)
	// The order of two subjects is open, and one event may come twice.
	got := map[string]events.Of[UserJoined]{}
	for len(got) < 2 {
		e := <-consumed
		got[e.Data.ID] = e
	}
	if got["1"].Data.Email != "ada@example.com" || got["2"].Data.Email != "bob@example.com" ||
		got["2"].ID != id {
		t.Errorf("heard %+v", got)
	}
}
