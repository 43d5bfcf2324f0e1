package check_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/demo"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/topology"
)

const order, funds, price, pieces = "0190a0e0-0000-7000-8000-000000000001", 1000, 300, 5

// one is one order of the choreography, with cancellation at any moment; the reactors are those of
// production, in the order of the topology, and the invariants are written apart from the
// choreography's own.
func one(t *testing.T, duplicates int, country string) check.Model {
	t.Helper()
	money, goods := consumer.Memory{}, consumer.Memory{}
	if err := money.Put("account", "ada", payments.Account{Customer: "ada", Currency: "EUR",
		Deposited: funds, Balance: funds}); err != nil {
		t.Fatal(err)
	}
	if err := goods.Put("stock", "teapot", inventory.Stock{SKU: "teapot", Received: pieces,
		OnHand: pieces}); err != nil {
		t.Fatal(err)
	}
	return check.Model{
		Topology: fulfilment.Topology(), Reactors: demo.Reactors(), Duplicates: duplicates,
		Begin: map[string]consumer.Memory{"payments": money, "inventory": goods},
		Commands: []check.Command{
			{To: "orders", Payload: orders.Place{Within: time.Minute, OrderPlaced: fulfilment.OrderPlaced{
				OrderID: order, Customer: "ada", Currency: "EUR",
				Lines: []fulfilment.Line{{SKU: "teapot", Quantity: 1, UnitPrice: price}},
				Address: fulfilment.Address{Name: "Ada", Street: "1", City: "X", PostalCode: "1",
					Country: country},
			}}},
			{To: "orders", Payload: orders.Cancel{OrderID: order}, Optional: true},
		},
		AtRest: agreed,
		Outcome: func(w check.System) string {
			var o orders.Order
			w.Row("orders", "orders", order, &o)
			return string(o.State)
		},
	}
}

// agreed is terminal agreement: money, goods and parcel are what the order's state says.
func agreed(w check.System) error {
	var o orders.Order
	var a payments.Account
	var s inventory.Stock
	var parcel shipping.Shipment
	w.Row("orders", "orders", order, &o)
	w.Row("payments", "account", "ada", &a)
	w.Row("inventory", "stock", "teapot", &s)
	w.Row("shipping", "shipments", order, &parcel)
	live := parcel.State == shipping.Scheduled
	switch o.State {
	case orders.Confirmed:
		if a.Balance == funds-price && s.Committed == 1 && s.Reserved == 0 && live {
			return nil
		}
	case orders.Cancelled:
		if a.Balance == funds && s.OnHand == pieces && !live {
			return nil
		}
	}
	return fmt.Errorf("order %q, balance %d, stock %+v, live parcel %v", o.State, a.Balance, s, live)
}

// moment is a state of the naive explorer; what is under way is named "to message".
type moment struct {
	memories            map[string]consumer.Memory
	inFlight, due, todo []string
	doubles             int
}

// naive explores a model once more, in the most obvious way: every state is a string.
type naive struct {
	*testing.T
	model    check.Model
	payloads map[string]events.Payload
	reactors map[string]consumer.Reactor
	optional map[string]bool
	seen     map[string]bool
	rest     int
}

func exploreNaively(t *testing.T, m check.Model) *naive {
	t.Helper()
	n := &naive{
		T: t, model: m, payloads: map[string]events.Payload{}, reactors: map[string]consumer.Reactor{},
		optional: map[string]bool{}, seen: map[string]bool{},
	}
	first := moment{memories: map[string]consumer.Memory{}, doubles: m.Duplicates}
	for _, r := range m.Reactors {
		n.reactors[r.Name], first.memories[r.Name] = r, m.Begin[r.Name].Clone()
	}
	for _, c := range m.Commands {
		name := n.name(c.To, c.Payload)
		first.todo, n.optional[name] = append(first.todo, name), c.Optional
	}
	n.visit(first)
	return n
}

func (n *naive) name(to string, p events.Payload) string {
	name := fmt.Sprintf("%s %T%+v", to, p, p)
	n.payloads[name] = p
	return name
}

func (n *naive) deliver(s moment, message string) {
	to, _, _ := strings.Cut(message, " ")
	s.memories = maps.Clone(s.memories)
	s.memories[to] = s.memories[to].Clone()
	effects, err := n.reactors[to].React(s.memories[to],
		events.Event{Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Data: n.payloads[message]})
	if err != nil {
		n.Fatal(err)
	}
	for _, d := range effects.Schedule {
		s.due = slices.Concat(s.due, []string{n.name(to, d.Payload)})
	}
	for _, p := range effects.Publish {
		for _, subscriber := range n.model.Topology.Subscribers(p.EventType()) {
			s.inFlight = slices.Concat(s.inFlight, []string{n.name(subscriber, p)})
		}
	}
	n.visit(s)
}

func (n *naive) visit(s moment) {
	s.inFlight, s.due = slices.Sorted(slices.Values(s.inFlight)), slices.Sorted(slices.Values(s.due))
	key := fmt.Sprint(s.memories, s.inFlight, s.due, s.todo, s.doubles)
	if n.seen[key] {
		return
	}
	n.seen[key] = true
	if len(s.inFlight)+len(s.due) == 0 &&
		!slices.ContainsFunc(s.todo, func(name string) bool { return !n.optional[name] }) {
		n.rest++
	}
	without := func(list []string, i int) []string { return slices.Delete(slices.Clone(list), i, i+1) }
	for i, name := range s.inFlight {
		next := s
		next.inFlight = without(s.inFlight, i)
		n.deliver(next, name)
		if s.doubles > 0 {
			next = s
			next.doubles--
			n.deliver(next, name)
		}
	}
	for i, name := range s.due {
		next := s
		next.due = without(s.due, i)
		n.deliver(next, name)
	}
	for i, name := range s.todo {
		next := s
		next.todo = without(s.todo, i)
		n.deliver(next, name)
	}
}

func TestTheExplorerVisitsWhatANaiveOneDoes(t *testing.T) {
	t.Parallel()
	doubles := duel()
	doubles.Duplicates = 2
	for _, m := range []check.Model{one(t, 0, "DE"), one(t, 0, "AQ"), doubles} {
		r := explore(t, m)
		n := exploreNaively(t, m)
		if r.States != len(n.seen) || r.TerminalStates != n.rest || !r.Complete {
			t.Errorf("%d states and %d of rest, a naive explorer finds %d and %d", r.States,
				r.TerminalStates, len(n.seen), n.rest)
		}
		if len(r.Violations) != 0 {
			t.Errorf("%+v", r.Violations)
		}
	}
}

// The models must not shrink unnoticed: a state that is no longer reached is no longer checked.
func TestTheModelsKeepTheirSize(t *testing.T) {
	t.Parallel()
	least := map[string]int{"one order": 9816, "no funds": 6246, "no stock": 12212,
		"country not served": 18708}
	for _, m := range demo.Models() {
		states, small := least[m.Name]
		if !small {
			continue // TestEveryInterleaving of package choreography explores it
		}
		delete(least, m.Name)
		r, err := demo.Explore(m)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d states, %.2f s", m.Name, r.States, r.Seconds)
		if r.States < states || !r.Complete || len(r.Violations) != 0 {
			t.Errorf("%s: %d states, at least %d before: %+v", m.Name, r.States, states, r.Violations)
		}
	}
	if len(least) != 0 {
		t.Errorf("gone: %v", least)
	}
}

// spoil wraps the reactor of a service: wrong changes the memory or its effects.
func spoil(m check.Model, service string, wrong func(before, after consumer.Memory, e events.Event,
	effects consumer.Effects) consumer.Effects) check.Model {
	m.Reactors = slices.Clone(m.Reactors)
	i := slices.IndexFunc(m.Reactors, func(r consumer.Reactor) bool { return r.Name == service })
	good := m.Reactors[i].React
	m.Reactors[i].React = func(memory consumer.Memory, e events.Event) (consumer.Effects, error) {
		before := memory.Clone()
		effects, err := good(memory, e)
		return wrong(before, memory, e, effects), err
	}
	return m
}

func is(e events.Event, eventType string) bool { return e.Data.EventType() == eventType }

// noTombstone forgets a cancellation of what was not known.
func noTombstone(table string) func(before, after consumer.Memory, e events.Event,
	effects consumer.Effects) consumer.Effects {
	return func(before, after consumer.Memory, e events.Event,
		effects consumer.Effects) consumer.Effects {
		if is(e, "order.cancelled") && before[table][order] == "" {
			delete(after[table], order)
		}
		return effects
	}
}

func TestPlantedBugsAreFound(t *testing.T) {
	t.Parallel()
	for name, bug := range map[string]struct {
		service, country string
		wrong            func(before, after consumer.Memory, e events.Event,
			effects consumer.Effects) consumer.Effects
	}{
		"payments leaves no tombstone":  {"payments", "DE", noTombstone("payments")},
		"inventory leaves no tombstone": {"inventory", "DE", noTombstone("reservations")},
		"shipping leaves no tombstone":  {"shipping", "DE", noTombstone("shipments")},
		"payments refunds twice": {"payments", "AQ", func(before, after consumer.Memory, e events.Event,
			effects consumer.Effects) consumer.Effects {
			if is(e, "order.cancelled") &&
				strings.Contains(before["payments"][order], string(payments.Refunded)) {
				_ = after.Put("account", "ada", payments.Account{Customer: "ada", Currency: "EUR",
					Deposited: funds, Balance: funds + price})
			}
			return effects
		}},
		"inventory forgets to release": {"inventory", "DE", func(before, after consumer.Memory,
			e events.Event, effects consumer.Effects) consumer.Effects {
			if is(e, "order.cancelled") {
				after["stock"] = before["stock"]
			}
			return effects
		}},
		"orders confirms what is cancelled": {"orders", "DE", func(before, _ consumer.Memory,
			e events.Event, effects consumer.Effects) consumer.Effects {
			if is(e, "shipment.scheduled") &&
				strings.Contains(before["orders"][order], string(orders.Cancelled)) {
				return consumer.Publish(fulfilment.OrderConfirmed{OrderID: order})
			}
			return effects
		}},
		"orders forgets the deadline and shipping its refusal": {"shipping", "AQ",
			func(_, _ consumer.Memory, _ events.Event, effects consumer.Effects) consumer.Effects {
				effects.Publish = slices.DeleteFunc(effects.Publish,
					func(p events.Payload) bool { return p.EventType() == "shipment.failed" })
				return effects
			}},
	} {
		m := spoil(one(t, 1, bug.country), bug.service, bug.wrong)
		if strings.Contains(name, "deadline") {
			m = spoil(m, "orders", func(_, _ consumer.Memory, _ events.Event,
				effects consumer.Effects) consumer.Effects {
				effects.Schedule = nil
				return effects
			})
		}
		if strings.Contains(name, "confirms") { // inventory commits what it has not yet released
			m.AtRest = func(w check.System) error {
				var o orders.Order
				var r inventory.Reservation
				w.Row("orders", "orders", order, &o)
				if w.Row("inventory", "reservations", order, &r); o.State == orders.Cancelled &&
					r.State == inventory.Committed {
					return fmt.Errorf("cancelled and committed")
				}
				return nil
			}
		}
		r, err := check.Explore(m)
		if err != nil || len(r.Violations) == 0 || len(r.Violations[0].Way) < 2 {
			t.Errorf("%s: not found in %d states: %v", name, r.States, err)
			continue
		}
		t.Logf("%s: %s\n  %s", name, r.Violations[0].What, strings.Join(r.Violations[0].Way, "\n  "))
	}
}

// Each event that the topology declares for a reaction or a command and that the reactions publish
// is needed there: without the declaration production would park what comes, and check says so.
func TestAMissingDeclarationIsFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ service, cause, said, country string }{
		{"inventory", "order.placed", "stock.rejected", "DE"},
		{"inventory", "payment.captured", "stock.reserved", "DE"},
		{"payments", "order.cancelled", "payment.refunded", "DE"},
		{"shipping", "stock.reserved", "shipment.failed", "AQ"},
		{"orders", "orders.expire", "order.cancelled", "DE"},
	} {
		m := one(t, 0, c.country)
		if c.said == "stock.rejected" {
			m.Begin["inventory"] = consumer.Memory{}
		}
		m.AtRest = nil
		i := slices.IndexFunc(m.Topology.Services,
			func(s topology.Service) bool { return s.Name == c.service })
		s := &m.Topology.Services[i]
		for j := range s.Reacts {
			if s.Reacts[j].Handles == c.cause {
				s.Reacts[j].Publishes = slices.DeleteFunc(slices.Clone(s.Reacts[j].Publishes),
					func(published string) bool { return published == c.said })
			}
		}
		for j := range s.Commands {
			if s.Commands[j].Type == c.cause {
				s.Commands[j].Publishes = nil
			}
		}
		r, err := check.Explore(m)
		want := fmt.Sprintf("%s publishes %s on %s", c.service, c.said, c.cause)
		if err != nil || len(r.Violations) == 0 || !strings.HasPrefix(r.Violations[0].What, want) {
			t.Errorf("%s: %v %v", want, r.Violations, err)
		}
	}
}
