package topology

import (
	"regexp"
	"strings"
)

// The bounds that are part of the declared queues.
const (
	// DeliveryLimit is a net, not a retry policy: each death of a connection counts one delivery for
	// every message of its prefetch, innocent ones too, so it must be far above what a bad day brings.
	DeliveryLimit = 1000
	maxRoutingKey = 255 // AMQP 0-9-1: a short string
)

// Exchange is a durable topic or fanout exchange.
type Exchange struct {
	Name string         `json:"name"`
	Kind string         `json:"kind"`
	Args map[string]any `json:"args,omitempty"`
}

// Queue is a durable queue with its arguments.
type Queue struct {
	Name string         `json:"name"`
	Args map[string]any `json:"args"`
}

// Binding sends what is published to Exchange under Key to Queue.
type Binding struct {
	Exchange string `json:"exchange"`
	Key      string `json:"key"`
	Queue    string `json:"queue"`
}

// Broker is all that must be declared on the broker, apart from the marker.
type Broker struct {
	Exchanges []Exchange `json:"exchanges"`
	Queues    []Queue    `json:"queues"`
	Bindings  []Binding  `json:"bindings"`
}

// Permission is what the broker's user of one service may do, as anchored regular expressions.
type Permission struct {
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

// ExchangeOf returns the exchange to which a service publishes, and no other service.
func ExchangeOf(service string) string { return service + ".events" }

// QueueOf returns the queue that a service consumes.
func QueueOf(service string) string { return service + ".in" }

// DeadQueueOf returns the dead-letter queue of a service. The service parks what it contains.
func DeadQueueOf(service string) string { return service + ".dead" }

// OwnerOf returns the service that publishes to an exchange. Since only its own user may write
// there, the exchange of a delivery proves its source.
func OwnerOf(exchange string) (service string, ok bool) {
	service, ok = strings.CutSuffix(exchange, ".events")
	return service, ok && service != ""
}

// SourceOf is the CloudEvents source of a service.
func SourceOf(service string) string { return "/" + service }

// Broker returns what must be declared for the whole topology.
func (t Topology) Broker() Broker {
	var b Broker
	for _, s := range t.Services {
		part := t.Part(s.Name)
		b.Exchanges = append(b.Exchanges, part.Exchanges...)
		b.Queues = append(b.Queues, part.Queues...)
		b.Bindings = append(b.Bindings, part.Bindings...)
	}
	return b
}

// Part returns what must be declared for one service: its exchange, its queues and its bindings;
// nothing for a service that is not of this topology.
func (t Topology) Part(service string) Broker {
	s, ok := t.Service(service)
	if !ok {
		return Broker{}
	}
	b := Broker{Exchanges: []Exchange{{Name: ExchangeOf(s.Name), Kind: "topic"}}}
	if len(s.Reacts) == 0 {
		return b
	}
	b.Queues = []Queue{
		{Name: DeadQueueOf(s.Name), Args: map[string]any{"x-queue-type": "quorum",
			"x-overflow": "reject-publish"}},
		{Name: QueueOf(s.Name), Args: map[string]any{
			"x-queue-type":     "quorum",
			"x-delivery-limit": DeliveryLimit,
			// At-least-once dead-lettering falls back to at-most-once, silently, unless the source
			// rejects publishes when it is full.
			"x-overflow":                "reject-publish",
			"x-dead-letter-strategy":    "at-least-once",
			"x-dead-letter-exchange":    "",
			"x-dead-letter-routing-key": DeadQueueOf(s.Name),
		}},
	}
	for _, handled := range s.Handles() {
		if publisher, ok := t.Publisher(handled); ok {
			b.Bindings = append(b.Bindings, Binding{Exchange: ExchangeOf(publisher), Key: handled,
				Queue: QueueOf(s.Name)})
		}
	}
	return b
}

// PermissionOf returns the rights of a service's user: it writes its own exchange, reads its own
// queues, and configures nothing. The markers are readable because newer brokers demand some right
// on what is declared passively.
func PermissionOf(service string) Permission {
	s := regexp.QuoteMeta(service)
	return Permission{
		Configure: `^$`,
		Write:     `^` + s + `\.events$`,
		Read:      `^(` + s + `\.(in|dead)|topology\..+)$`,
	}
}
