package rabbit_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/topology"
)

// reacting returns a service that publishes NAME.done and handles the given types.
func reacting(name string, handles ...string) topology.Service {
	s := topology.Service{Name: name,
		Commands: []topology.Command{{Does: "begin", Publishes: []string{name + ".done"}}}}
	for _, h := range handles {
		s.Reacts = append(s.Reacts, topology.Reaction{Handles: h, Does: "note " + h})
	}
	return s
}

func named(name string, services ...topology.Service) topology.Topology {
	return topology.Topology{Name: name, Services: services}
}

// planned returns the steps of a plan, each as its action and its object.
func planned(t *testing.T, manage, broker string, of topology.Topology) (lines []string) {
	t.Helper()
	steps, err := rabbit.Plan(t.Context(), manage, broker, of)
	must(t, err)
	return lined(steps)
}

func lined(steps []rabbit.Step) (lines []string) {
	for _, s := range steps {
		lines = append(lines, s.Action+" "+s.Object)
	}
	return lines
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A plan lists what is missing, what differs and what only an earlier version declared, and nothing
// that belongs to others. Apply and Prune then do it, but for a queue that is in use.
func TestPlanAndPrune(t *testing.T) {
	t.Parallel()
	broker, manage := servertest.Vhost(t)
	first := named("shop", reacting("a"), reacting("b", "a.done"),
		reacting("old", "a.done", "old.done"), reacting("moved", "moved.done"))
	second := named("shop", reacting("a"), reacting("b", "old2.done"), reacting("old2"))
	other := named("yard", reacting("moved", "moved.done"))
	if n := len(planned(t, manage, broker, first)); n != 4+6+4+1 {
		t.Errorf("%d steps on an empty broker", n)
	}
	_, err := rabbit.Prune(t.Context(), manage, broker, first)
	if !errors.Is(err, rabbit.ErrNotApplied) {
		t.Errorf("pruned for a topology that is not applied: %v", err)
	}
	must(t, rabbit.Apply(t.Context(), broker, first))
	must(t, rabbit.Apply(t.Context(), broker, other))
	admin := channel(t, broker)
	_, err = admin.QueueDeclare("stray", true, false, false, false, nil)
	must(t, err)
	must(t, admin.QueueBind("stray", "a.done", "a.events", false, nil)) // not of any version
	must(t, admin.QueueBind("b.in", "a.strange", "a.events", false, nil))
	same(t, "after it was applied", planned(t, manage, broker, first))
	gone := []string{"remove queue old.in", "remove queue old.dead",
		"remove binding a.events → b.in under a.done", "remove binding a.events → old.in under a.done",
		"remove binding old.events → old.in under old.done", "remove exchange old.events",
		"remove exchange " + first.Marker()}
	same(t, "of the next version", planned(t, manage, broker, second), append([]string{
		"add binding old2.events → b.in under old2.done", "add exchange old2.events",
		"add exchange " + second.Marker()}, gone...)...)

	must(t, rabbit.Apply(t.Context(), broker, second))
	same(t, "of what is left to prune", planned(t, manage, broker, second), gone...)
	must(t, admin.PublishWithContext(t.Context(), "old.events", "old.done", true, false,
		amqp.Publishing{}))
	waitFor(t, "old.in holds the event", func() bool {
		q, err := admin.QueueDeclarePassive("old.in", true, false, false, false, nil)
		return err == nil && q.Messages == 1
	})
	reader := channel(t, broker)
	_, err = reader.Consume("old.dead", "reader", false, false, false, false, nil)
	must(t, err)
	pruned, err := rabbit.Prune(t.Context(), manage, broker, second)
	must(t, err)
	same(t, "removed", lined(pruned.Removed), gone[2])
	same(t, "refused", lined(pruned.Refused), append(slices.Clone(gone[:2]), gone[3:]...)...)
	for i, reason := range []string{"holds 1 messages", "has 1 consumers", "queue stays",
		"queue stays", "bound to it", "lists what stays"} {
		if !strings.Contains(pruned.Refused[i].Reason, reason) {
			t.Errorf("%+v, want %s", pruned.Refused[i], reason)
		}
	}
	must(t, reader.Cancel("reader", false))
	if _, ok, err := admin.Get("old.in", true); err != nil || !ok {
		t.Errorf("the event in old.in is gone: %v", err)
	}
	pruned, err = rabbit.Prune(t.Context(), manage, broker, second)
	must(t, err)
	if len(pruned.Refused) > 0 {
		t.Errorf("refused %+v", pruned.Refused)
	}
	same(t, "after all was pruned", planned(t, manage, broker, second))
	same(t, "of the other topology", planned(t, manage, broker, other))
	if q, err := admin.QueueDeclarePassive("stray", true, false, false, false, nil); err != nil ||
		q.Messages != 0 {
		t.Errorf("stray: %+v, %v", q, err)
	}
}

// What a broker cannot change is in the plan with the command that repairs it.
func TestPlanNamesWhatCannotBeChanged(t *testing.T) {
	t.Parallel()
	broker, manage := servertest.Vhost(t)
	_, err := channel(t, broker).QueueDeclare("b.in", true, false, false, false,
		amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 20})
	must(t, err)
	steps, err := rabbit.Plan(t.Context(), manage, broker, named("shop", reacting("b", "b.done")))
	must(t, err)
	i := slices.IndexFunc(steps, func(s rabbit.Step) bool { return s.Action == rabbit.Change })
	if i < 0 || steps[i].Object != "queue b.in" || steps[i].Next == "" ||
		!strings.Contains(steps[i].Reason, "x-delivery-limit is 20, want 1000") {
		t.Errorf("%+v", steps)
	}
}

// A marker of a release whose markers had no list is replaced, and until then it owns nothing.
func TestPruneReplacesAMarkerWithoutAList(t *testing.T) {
	t.Parallel()
	broker, manage := servertest.Vhost(t)
	first := named("shop", reacting("a"), reacting("b", "a.done"))
	second := named("shop", reacting("a"))
	admin := channel(t, broker)
	must(t, admin.ExchangeDeclare(first.Marker(), "fanout", true, false, false, false, nil))
	must(t, rabbit.Apply(t.Context(), broker, first)) // it may be repeated over the old marker
	same(t, "with an old marker", planned(t, manage, broker, first))
	same(t, "of the next version", planned(t, manage, broker, second),
		"add exchange "+second.Marker(), "remove exchange "+first.Marker())
	pruned, err := rabbit.Prune(t.Context(), manage, broker, first)
	must(t, err)
	same(t, "removed", lined(pruned.Removed))
	same(t, "of the next version, after its marker has a list", planned(t, manage, broker, second),
		"add exchange "+second.Marker(), "remove queue b.in", "remove queue b.dead",
		"remove binding a.events → b.in under a.done", "remove exchange b.events",
		"remove exchange "+first.Marker())
}
