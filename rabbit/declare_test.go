package rabbit_test

import (
	"errors"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// service is the broker's user of one service, with the rights of the topology and no other.
func service(t *testing.T, url, manage, name string) string {
	t.Helper()
	p := topology.PermissionOf(name)
	return devstack.User(t, url, manage, name, p.Configure, p.Write, p.Read)
}

// A service that may configure nothing can look for the marker, and finds it only when all is
// there.
func TestMarkerIsFoundOnceTheTopologyIsApplied(t *testing.T) {
	t.Parallel()
	url, manage := devstack.Vhost(t)
	topo := topology.Fulfilment()
	for _, s := range topo.Services {
		orders := service(t, url, manage, s.Name)
		err := open(t, orders).CheckApplied(topo)
		if !errors.Is(err, rabbit.ErrNotApplied) ||
			!strings.Contains(err.Error(), "quadrille topology apply") {
			t.Fatalf("%s, before it is applied: %v", s.Name, err)
		}
	}
	must(t, rabbit.Apply(t.Context(), url, topo))
	must(t, rabbit.Apply(t.Context(), url, topo)) // it may be repeated
	for _, s := range topo.Services {
		session := open(t, service(t, url, manage, s.Name))
		must(t, session.CheckApplied(topo))
		_, err := rabbit.Subscribe(session, topology.QueueOf(s.Name), 1, 0) // the session goes on
		must(t, err)
	}
	if err := open(t, url).CheckApplied(topo.With(topology.Service{Name: "fifth"})); !errors.Is(err,
		rabbit.ErrNotApplied) {
		t.Errorf("another topology: %v", err)
	}
}

func TestServiceMayOnlyWriteItsExchangeAndReadItsQueues(t *testing.T) {
	t.Parallel()
	url, manage := devstack.Vhost(t)
	must(t, rabbit.Apply(t.Context(), url, topology.Fulfilment()))
	orders := service(t, url, manage, "orders")
	say := func(exchange, key string) rabbit.Message {
		return rabbit.Message{Exchange: exchange, Key: key,
			Publishing: amqp.Publishing{Body: []byte("{}")}}
	}
	p := publisher(t, orders)
	expect(t, p, publish(t, p, say("orders.events", "order.placed"))[0], rabbit.Confirmed)
	for _, foreign := range []rabbit.Message{say("payments.events", "payment.captured"),
		say("", "orders.in"), say("amq.topic", "x")} {
		p := publisher(t, orders)
		expect(t, p, publish(t, p, foreign)[0], rabbit.Unknown)
		if err := over(t, p.Session); rabbit.ServerCode(err) != amqp.AccessRefused {
			t.Errorf("publishing to %q: %v", foreign.Exchange, err)
		}
	}
	p = publisher(t, orders)
	forged := say("orders.events", "order.placed")
	forged.UserId = "payments"
	expect(t, p, publish(t, p, forged)[0], rabbit.Unknown)
	for _, queue := range []string{"payments.in", "payments.dead"} {
		if _, err := rabbit.Subscribe(open(t, orders), queue, 1,
			0); rabbit.ServerCode(err) != amqp.AccessRefused {
			t.Errorf("reading %s: %v", queue, err)
		}
	}
	if err := open(t, orders).DeclarePart(topology.Fulfilment().With(topology.Service{Name: "fifth"}),
		"fifth"); rabbit.ServerCode(err) != amqp.AccessRefused {
		t.Errorf("declaring: %v", err)
	}
}

// Every event reaches every service that hears it, and no other queue.
func TestAppliedTopologyRoutesWhatIsPublished(t *testing.T) {
	t.Parallel()
	url, _ := devstack.Vhost(t)
	topo := topology.Fulfilment()
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
				t.Errorf("%s: %s did not hear it", eventType, name)
			}
		}
	}
	for _, s := range topo.Services {
		if d, ok, err := admin.Get(topology.QueueOf(s.Name), true); err != nil || ok {
			t.Errorf("%s also heard %s (%v)", s.Name, d.MessageId, err)
		}
	}
}

func TestConflictNamesTheRemedy(t *testing.T) {
	t.Parallel()
	url, _ := devstack.Vhost(t)
	_, err := channel(t, url).QueueDeclare("orders.in", true, false, false, false, nil)
	must(t, err)
	err = rabbit.Apply(t.Context(), url, topology.Fulfilment())
	if rabbit.ServerCode(err) != amqp.PreconditionFailed ||
		!strings.Contains(err.Error(), "delete the queue orders.in") {
		t.Errorf("error %v", err)
	}
	if err := open(t, url).CheckApplied(topology.Fulfilment()); !errors.Is(err, rabbit.ErrNotApplied) {
		t.Errorf("half applied, yet marked: %v", err)
	}
}

func TestServiceDeclaresItsPart(t *testing.T) {
	t.Parallel()
	url, _ := devstack.Vhost(t)
	small := topology.Topology{Name: "small",
		Services: []topology.Service{{Name: "solo",
			Commands: []topology.Command{{Does: "x", Publishes: []string{"x.y"}}},
			Reacts:   []topology.Reaction{{Handles: "x.y", Does: "hear"}}}}}
	s := open(t, url)
	must(t, s.DeclarePart(small, "solo"))
	p, err := rabbit.NewPublisher(s)
	must(t, err)
	m := rabbit.Message{Exchange: "solo.events", Key: "x.y", Mandatory: true,
		Publishing: amqp.Publishing{MessageId: "1"}}
	expect(t, p, publish(t, p, m)[0], rabbit.Confirmed)
}
