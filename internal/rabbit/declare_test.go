package rabbit_test

import (
	"errors"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/topology"
)

// serviceURL creates the broker's user of one service, which has only the rights of the topology,
// and returns its URL.
func serviceURL(t *testing.T, url, manage, name string) string {
	t.Helper()
	p := topology.PermissionOf(name)
	return servertest.User(t, url, manage, name, p.Configure, p.Write, p.Read)
}

// A service without the right to configure can check for the marker, and finds it only after the
// whole topology was applied.
func TestMarkerIsFoundOnceTheTopologyIsApplied(t *testing.T) {
	t.Parallel()
	url, manage := servertest.Vhost(t)
	topo := fulfilment.Topology()
	for _, s := range topo.Services {
		orders := serviceURL(t, url, manage, s.Name)
		err := open(t, orders).CheckApplied(topo)
		if !errors.Is(err, rabbit.ErrNotApplied) ||
			!strings.Contains(err.Error(), "apply the topology") {
			t.Fatalf("%s, before the topology is applied: %v", s.Name, err)
		}
	}
	must(t, rabbit.Apply(t.Context(), url, topo))
	must(t, rabbit.Apply(t.Context(), url, topo)) // it may be repeated
	for _, s := range topo.Services {
		session := open(t, serviceURL(t, url, manage, s.Name))
		must(t, session.CheckApplied(topo))
		_, err := rabbit.Subscribe(session, topology.QueueOf(s.Name), "", 1, 0) // the session continues
		must(t, err)
	}
	if err := open(t, url).CheckApplied(topo.With(topology.Service{Name: "fifth"})); !errors.Is(err,
		rabbit.ErrNotApplied) {
		t.Errorf("another topology: %v", err)
	}
}

func TestServiceMayOnlyWriteItsExchangeAndReadItsQueues(t *testing.T) {
	t.Parallel()
	url, manage := servertest.Vhost(t)
	must(t, rabbit.Apply(t.Context(), url, fulfilment.Topology()))
	orders := serviceURL(t, url, manage, "orders")
	toPublish := func(exchange, key string) rabbit.Message {
		return rabbit.Message{Exchange: exchange, Key: key,
			Publishing: amqp.Publishing{Body: []byte("{}")}}
	}
	p := publisher(t, orders)
	expect(t, p, publish(t, p, toPublish("orders.events", "order.placed"))[0], rabbit.Confirmed)
	for _, foreign := range []rabbit.Message{toPublish("payments.events", "payment.captured"),
		toPublish("", "orders.in"), toPublish("amq.topic", "x")} {
		p := publisher(t, orders)
		expect(t, p, publish(t, p, foreign)[0], rabbit.Unknown)
		if err := waitClosed(t, p.Session); rabbit.ServerCode(err) != amqp.AccessRefused {
			t.Errorf("publishing to %q: %v", foreign.Exchange, err)
		}
	}
	p = publisher(t, orders)
	forged := toPublish("orders.events", "order.placed")
	forged.UserId = "payments"
	expect(t, p, publish(t, p, forged)[0], rabbit.Unknown)
	for _, queue := range []string{"payments.in", "payments.dead"} {
		if _, err := rabbit.Subscribe(open(t, orders), queue, "", 1,
			0); rabbit.ServerCode(err) != amqp.AccessRefused {
			t.Errorf("reading %s: %v", queue, err)
		}
	}
	if err := open(t, orders).DeclarePart(fulfilment.Topology().With(topology.Service{Name: "fifth"}),
		"fifth"); rabbit.ServerCode(err) != amqp.AccessRefused {
		t.Errorf("declaring: %v", err)
	}
}

// Every event reaches the queue of each service that consumes it, and no other queue.
func TestAppliedTopologyRoutesEveryEvent(t *testing.T) {
	t.Parallel()
	url, _ := servertest.Vhost(t)
	topo := fulfilment.Topology()
	must(t, rabbit.Apply(t.Context(), url, topo))
	p, admin := publisher(t, url), channel(t, url)
	for _, eventType := range topo.Types() {
		owner, _ := topo.Publisher(eventType)
		subscribers := topo.Subscribers(eventType)
		want := rabbit.Confirmed
		if len(subscribers) == 0 {
			want = rabbit.Returned
		}
		m := rabbit.Message{Exchange: topology.ExchangeOf(owner), Key: eventType, Mandatory: true,
			Publishing: amqp.Publishing{MessageId: eventType}}
		expect(t, p, publish(t, p, m)[0], want)
		for _, name := range subscribers {
			d, ok, err := admin.Get(topology.QueueOf(name), true)
			must(t, err)
			if !ok || d.MessageId != eventType {
				t.Errorf("%s is not in the queue of %s", eventType, name)
			}
		}
	}
	for _, s := range topo.Services {
		if d, ok, err := admin.Get(topology.QueueOf(s.Name), true); err != nil || ok {
			t.Errorf("%s is in the queue of %s, which does not consume it (%v)", d.MessageId, s.Name, err)
		}
	}
}

func TestConflictNamesTheRemedy(t *testing.T) {
	t.Parallel()
	url, _ := servertest.Vhost(t)
	_, err := channel(t, url).QueueDeclare("orders.in", true, false, false, false, nil)
	must(t, err)
	err = rabbit.Apply(t.Context(), url, fulfilment.Topology())
	if rabbit.ServerCode(err) != amqp.PreconditionFailed ||
		!strings.Contains(err.Error(), "command: topology migrate") {
		t.Errorf("error %v", err)
	}
	if err := open(t, url).CheckApplied(fulfilment.Topology()); !errors.Is(err, rabbit.ErrNotApplied) {
		t.Errorf("the marker exists after half of the topology: %v", err)
	}
}

func TestServiceDeclaresItsPart(t *testing.T) {
	t.Parallel()
	url, _ := servertest.Vhost(t)
	small := topology.Topology{Name: "small",
		Services: []topology.Service{{Name: "solo",
			Commands: []topology.Command{{Does: "x", Publishes: []string{"x.y"}}},
			Reacts:   []topology.Reaction{{Handles: "x.y", Does: "handle"}}}}}
	s := open(t, url)
	must(t, s.DeclarePart(small, "solo"))
	p, err := rabbit.NewPublisher(s)
	must(t, err)
	m := rabbit.Message{Exchange: "solo.events", Key: "x.y", Mandatory: true,
		Publishing: amqp.Publishing{MessageId: "1"}}
	expect(t, p, publish(t, p, m)[0], rabbit.Confirmed)
}
