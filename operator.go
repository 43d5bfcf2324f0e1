package quadrille

import (
	"context"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// ApplyTopology declares a whole topology on the broker of an AMQP URL, whose user must have the
// right to configure it: the exchanges, queues and bindings, and last the marker that services wait
// for. An operator or a deployment runs it, and may repeat it. It does not change objects that the
// topology does not describe; an object that exists with other arguments is an error.
func ApplyTopology(ctx context.Context, amqpURL string, t topology.Topology) error {
	return rabbit.Apply(ctx, amqpURL, t)
}

// TestEvent is an event as it is on the wire, with its way.
type TestEvent struct {
	Exchange   string
	RoutingKey string
	Record     events.Record
}

// PublishTestEvents publishes events as they are, in their order, and waits until the broker has
// confirmed all of them. At least one queue must be bound for each. It is for an operator and for
// tests, which may publish forged and malformed events with it; a service publishes with
// Service.Publish, in the transaction of its change.
func PublishTestEvents(ctx context.Context, amqpURL string, published ...TestEvent) error {
	messages := make([]rabbit.Message, len(published))
	for i, e := range published {
		messages[i] = rabbit.Message{Exchange: e.Exchange, Key: e.RoutingKey, Mandatory: true,
			Publishing: rabbit.Publishing(e.Record)}
	}
	return rabbit.Send(ctx, amqpURL, "test events", messages...)
}
