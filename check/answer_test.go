package check_test

import (
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// Probe is a call of the first service.
type Probe struct{ ID string }

func (Probe) EventType() string { return "first.probe" }
func (p Probe) Subject() string { return p.ID }

// An answer is treated as in production: one without a reaction is published, and one that the
// topology does not declare is a violation.
func TestAnswersFollowTheRulesOfProduction(t *testing.T) {
	t.Parallel()
	model := func(answer events.Payload) check.Model {
		m := duel()
		first := &m.Topology.Services[0]
		first.Commands[0].Requests = []string{"first.probe"}
		first.Calls = []topology.Call{{Type: "first.probe", Does: "probe"}}
		locks := func(s *notes, e events.Event) { s.Notes.Lock(e.Data.Subject()) }
		m.Reactors[0] = consumer.Participant[notes]{Name: "first", Locks: locks,
			React: []consumer.Reaction[notes]{
				add("a", func(a Ask) consumer.Effects { return consumer.Request(Probe(a)) }),
				add("r", silent[Answer]), add("g", silent[GiveUp]),
			}}.Reactor()
		m.Outside = map[string]func(consumer.Memory, events.Payload) (events.Payload, error){
			"first.probe": func(consumer.Memory, events.Payload) (events.Payload, error) {
				return answer, nil
			}}
		return m
	}
	// It is published to the second service, whose answer comes back.
	if r := explore(t, model(Asked{"x"})); len(r.Violations) != 0 || r.TerminalOutcomes["ar"] != 1 {
		t.Errorf("published: %+v", r)
	}
	for want, answer := range map[string]events.Payload{
		"first.give-up answers first.probe of first": GiveUp{"x"},
		"first publishes first.ghost on first.probe": ghost{"x"},
	} {
		r := explore(t, model(answer))
		if len(r.Violations) != 1 || !strings.Contains(r.Violations[0].What, want) {
			t.Errorf("%+v, want %s", r.Violations, want)
		}
	}
}

// ghost is in no topology.
type ghost struct{ ID string }

func (ghost) EventType() string { return "first.ghost" }
func (g ghost) Subject() string { return g.ID }
