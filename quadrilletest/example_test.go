package quadrilletest_test

import (
	"context"
	"testing"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// A test of a reaction needs no server.
func ExampleReact() {
	var t *testing.T // of the test
	quadrilletest.React(t, door(), quadrilletest.Case{
		When:    []events.Payload{joined{"42"}},
		Rows:    []any{visitor{ID: "42", Times: 1}},
		Effects: consumer.Publish(greeted{"42"}),
	})
}

// A test of a service runs it on real servers, through a network that the test can break.
func ExampleRun() {
	var t *testing.T // of the test
	servers := quadrilletest.Shared(t)
	broker := servers.VirtualHost(t)
	network := quadrilletest.NewProxy(t, broker)
	service, err := quadrille.New(quadrille.Config{Name: "members", AMQP: network.URL,
		Publishes: []events.Payload{joined{}}, Database: servers.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	published := quadrilletest.Record(t, broker, "members")
	stop := quadrilletest.Run(t, service)
	network.Down()
	quadrilletest.WaitFor(t, "user 42 joins without a broker", func() (bool, string) {
		err := join(context.Background(), service, "42")
		return err == nil, "the service is starting"
	})
	network.Up()
	published.Await("user.joined", "42")
	stop()
	published.ExpectNoMore()
}
