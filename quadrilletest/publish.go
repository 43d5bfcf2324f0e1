package quadrilletest

import (
	"testing"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// Publish publishes events on the exchange of a service, as that service would, and returns them
// when the broker has confirmed all of them. A queue must be bound for each. For events that no
// service would publish, such as forged ones, use quadrille.PublishTestEvents.
func Publish(t testing.TB, amqpURL, service string, payloads ...events.Payload) []events.Event {
	t.Helper()
	published := make([]events.Event, len(payloads))
	raw := make([]quadrille.TestEvent, len(payloads))
	for i, payload := range payloads {
		published[i] = events.Cause(events.Event{}, topology.SourceOf(service), time.Now(), payload)
		record, err := published[i].Record()
		if err != nil {
			t.Fatalf("publish %s: %v", payload.EventType(), err)
		}
		raw[i] = quadrille.TestEvent{Exchange: topology.ExchangeOf(service), RoutingKey: record.Type,
			Record: record}
	}
	if err := quadrille.PublishTestEvents(t.Context(), amqpURL, raw...); err != nil {
		t.Fatalf("publish as %s: %v", service, err)
	}
	return published
}
