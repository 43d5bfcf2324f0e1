package check_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// A duel of two services: the first asks, the second answers, and a deadline gives up.
type (
	Ask    struct{ ID string }
	Asked  struct{ ID string }
	Answer struct{ ID string }
	GiveUp struct{ ID string }
)

func (Ask) EventType() string    { return "first.ask" }
func (Asked) EventType() string  { return "asked" }
func (Answer) EventType() string { return "answered" }
func (GiveUp) EventType() string { return "first.give-up" }
func (a Ask) Subject() string    { return a.ID }
func (a Asked) Subject() string  { return a.ID }
func (a Answer) Subject() string { return a.ID }
func (a GiveUp) Subject() string { return a.ID }

// Note counts what was heard.
type Note struct {
	ID    string `db:"id"`
	Heard string `db:"heard"`
}

type notes struct {
	Notes consumer.Rows[string, Note] `table:"notes" key:"id"`
}

// add writes down what was heard and says what comes of it.
func add[T events.Payload](mark string,
	effects func(T) consumer.Effects) consumer.Reaction[notes] {
	return consumer.On(func(s *notes, e events.Of[T]) (consumer.Effects, error) {
		n, _ := s.Notes.Get(e.Data.Subject())
		s.Notes.Set(e.Data.Subject(), Note{ID: e.Data.Subject(), Heard: n.Heard + mark})
		return effects(e.Data), nil
	})
}

func silent[T events.Payload](T) consumer.Effects { return consumer.Effects{} }

func duel() check.Model {
	needs := func(s *notes, e events.Event) { s.Notes.Lock(e.Data.Subject()) }
	first := consumer.Participant[notes]{Name: "first", Locks: needs,
		React: []consumer.Reaction[notes]{
			add("a", func(a Ask) consumer.Effects {
				return consumer.Publish(Asked(a)).And(consumer.Schedule(time.Minute, GiveUp(a)))
			}),
			add("r", silent[Answer]), add("g", silent[GiveUp]),
		}}
	second := consumer.Participant[notes]{Name: "second", Locks: needs,
		React: []consumer.Reaction[notes]{
			add("q", func(a Asked) consumer.Effects { return consumer.Publish(Answer(a)) }),
		}}
	return check.Model{
		Topology: topology.Topology{Name: "duel", Services: []topology.Service{
			{Name: "first", Commands: []topology.Command{{Does: "ask", Publishes: []string{"asked"}},
				{Does: "give up", Type: "first.give-up", After: time.Minute}},
				Reacts: []topology.Reaction{{Handles: "answered", Does: "rest"}}},
			{Name: "second", Reacts: []topology.Reaction{{Handles: "asked", Does: "answer",
				Publishes: []string{"answered"}}}},
		}},
		Reactors: []consumer.Reactor{first.Reactor(), second.Reactor()},
		Commands: []check.Command{{To: "first", Payload: Ask{"x"}}},
		Outcome:  handled,
	}
}

// handled is what the first service has noted, in order.
func handled(w check.System) string {
	var n Note
	w.Row("first", "notes", "x", &n)
	return n.Heard
}

func explore(t *testing.T, m check.Model) check.Report {
	t.Helper()
	r, err := check.Explore(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states, %d terminal, complete %v, %.3f s", r.States, r.TerminalStates, r.Complete,
		r.Seconds)
	return r
}

// The states of the duel can be counted by hand: nothing yet; asked; then the deadline before,
// between and after the two messages.
func TestEveryStateIsVisitedOnce(t *testing.T) {
	t.Parallel()
	r := explore(t, duel())
	if r.States != 8 || r.TerminalStates != 2 ||
		fmt.Sprint(r.TerminalOutcomes) != "map[agr:1 arg:1]" || !r.Complete || len(r.Violations) != 0 {
		t.Errorf("%+v", r)
	}
	m := duel()
	m.Duplicates = 1
	// The question or the answer comes twice, so the answer is heard twice, with the deadline
	// anywhere.
	if r := explore(t, m); fmt.Sprint(r.TerminalOutcomes) != "map[agr:1 agrr:2 arg:1 argr:2 arrg:2]" {
		t.Errorf("with one duplicate: %+v", r)
	}
	m = duel()
	m.Commands[0].Optional = true
	if r := explore(t, m); r.TerminalOutcomes[""] != 1 || r.TerminalStates != 3 {
		t.Errorf("with a command that need not happen: %+v", r)
	}
}

// A deadline that is set again is moved: it comes once.
func TestADeadlineThatIsSetAgainComesOnce(t *testing.T) {
	t.Parallel()
	m := duel()
	m.Commands = append(m.Commands, m.Commands[0])
	if r := explore(t, m); r.TerminalOutcomes["aarrg"] == 0 || r.TerminalOutcomes["agarrg"] == 0 ||
		r.TerminalOutcomes["aarrgg"] != 0 {
		t.Errorf("%+v", r)
	}
}

// Every invariant is asked where it must be, and what breaks it is told with the shortest way to
// it.
func TestAViolationComesWithTheShortestWay(t *testing.T) {
	t.Parallel()
	m := duel()
	m.Always = func(w check.System) error {
		if strings.HasSuffix(handled(w), "g") {
			return errors.New("it gave up")
		}
		return nil
	}
	r := explore(t, m)
	want := []string{"first.ask of x → first (command)", "first.give-up of x → first (deadline)"}
	if len(r.Violations) == 0 || !slices.Equal(r.Violations[0].Way, want) ||
		r.Violations[0].What != "it gave up" || !r.Complete {
		t.Errorf("%+v", r.Violations)
	}
	m = duel()
	m.Always = func(w check.System) error { // about the other service
		if w.Row("second", "notes", "x", &Note{}) {
			return errors.New("it heard")
		}
		return nil
	}
	if r := explore(t, m); len(r.Violations) == 0 || len(r.Violations[0].Way) != 2 {
		t.Errorf("%+v", r.Violations)
	}
	m = duel()
	m.AtRest = func(w check.System) error { return fmt.Errorf("rest with %s", handled(w)) }
	if r := explore(t, m); len(r.Violations) != 2 || len(r.Violations[0].Way) != 4 ||
		!strings.HasPrefix(r.Violations[0].Way[0], "first.ask") {
		t.Errorf("%+v", r.Violations)
	}
}

func TestABoundMakesItIncomplete(t *testing.T) {
	t.Parallel()
	for limit, complete := range map[int]bool{1: false, 7: false, 8: true, 9: true, 0: true} {
		m := duel()
		m.MaxStates = limit
		if r := explore(t, m); r.Complete != complete || !complete && r.States != limit {
			t.Errorf("at most %d: %+v", limit, r)
		}
	}
}

func TestAModelThatIsWrongIsAnError(t *testing.T) {
	t.Parallel()
	most := duel()
	most.Commands, most.MaxStates = slices.Repeat(most.Commands, 32), 1
	if r := explore(t, most); r.States != 1 {
		t.Errorf("as many commands as there may be: %+v", r)
	}
	for want, change := range map[string]func(m *check.Model){
		"no reactor for service second": func(
			m *check.Model) {
			m.Reactors = m.Reactors[:1]
		},
		"33 commands, at most 32": func(m *check.Model) {
			m.Commands,
				m.MaxStates = slices.Repeat(m.Commands, 33), 1
		},
		"command first.ask is for nobody": func(
			m *check.Model) {
			m.Commands[0].To = "nobody"
		},
		"which no service publishes": func(
			m *check.Model) {
			m.Topology.Services = m.Topology.Services[1:]
		},
		"second: first.ask: second has no react": func(
			m *check.Model) {
			m.Commands[0].To = "second"
		},
		"after\n    first.ask of x → first (command)\n": func(m *check.Model) {
			m.Reactors[1] = panicking(
				m.Reactors[1])
		},
	} {
		m := duel()
		change(&m)
		if _, err := check.Explore(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// panicking is a reactor whose answer is one panic too many.
func panicking(r consumer.Reactor) consumer.Reactor {
	p := consumer.Participant[notes]{Name: r.Name, Locks: func(*notes, events.Event) {},
		React: []consumer.Reaction[notes]{
			add("q", silent[Asked]), // it touches a row that nobody asked for
		}}
	return p.Reactor()
}

// ring is two services that answer each other; each round goes through next, and a deadline, set
// with the first question, may end it.
func ring(next func(string) string, ends bool) check.Model {
	m := duel()
	needs := func(s *notes, e events.Event) { s.Notes.Lock("x") }
	over := func(s *notes) bool { n, _ := s.Notes.Get("x"); return n.Heard == "over" }
	first := consumer.Participant[notes]{Name: "first", Locks: needs,
		React: []consumer.Reaction[notes]{
			consumer.On(func(_ *notes, e events.Of[Ask]) (consumer.Effects, error) {
				return consumer.Publish(Asked{e.Data.ID}).And(consumer.Schedule(time.Minute, GiveUp(e.Data))),
					nil
			}),
			consumer.On(func(s *notes, e events.Of[Answer]) (consumer.Effects, error) {
				if ends && over(s) {
					return consumer.Effects{}, nil
				}
				return consumer.Publish(Asked{next(e.Data.ID)}), nil
			}),
			consumer.On(func(s *notes, _ events.Of[GiveUp]) (consumer.Effects, error) {
				s.Notes.Set("x", Note{ID: "x", Heard: "over"})
				return consumer.Effects{}, nil
			}),
		}}
	m.Reactors = []consumer.Reactor{first.Reactor(), m.Reactors[1]}
	second := consumer.Participant[notes]{Name: "second", Locks: needs,
		React: []consumer.Reaction[notes]{
			consumer.On(func(_ *notes, e events.Of[Asked]) (consumer.Effects, error) {
				return consumer.Publish(Answer(
					e.Data)), nil
			}),
		}}
	m.Reactors[1] = second.Reactor()
	m.Topology.Services[0].Reacts[0].Publishes = []string{"asked"}
	return m
}

// Services that answer each other without end never come to rest: that is a violation, with the
// loop. If what must happen ends it, it is none.
func TestAChoreographyThatDoesNotComeToRest(t *testing.T) {
	t.Parallel()
	same := func(id string) string { return id }
	another := func(id string) string {
		n, _ := strconv.Atoi(strings.TrimPrefix(id, "x"))
		return fmt.Sprint("x", n+1)
	}
	r := explore(t, ring(same, false))
	if len(r.Violations) != 1 || !strings.Contains(r.Violations[0].What, "does not come to rest") ||
		r.Violations[0].States != r.States {
		t.Fatalf("%v", r.Violations)
	}
	way := r.Violations[0].String()
	for _, step := range []string{"again and again:\n", "asked of x → second\n",
		"answered of x → first"} {
		if !strings.Contains(way, step) {
			t.Errorf("%q is not in %s", step, way)
		}
	}
	if r := explore(t, ring(same, true)); len(r.Violations) != 0 || r.TerminalStates == 0 {
		t.Errorf("a deadline ends it: %v", r.Violations)
	}
	m := ring(another, false)
	m.MaxStates = 1000
	if r := explore(t, m); len(r.Violations) != 1 || r.Complete ||
		!strings.Contains(r.Violations[0].What, "as far as it was explored") {
		t.Errorf("each round has another message: %+v", r)
	}
	m.MaxStates = 0
	if _, err := check.Explore(m); err == nil || !strings.Contains(err.Error(), "has no end") {
		t.Errorf("without a bound: %v", err)
	}
	m = ring(same, true) // only the customer ends it, who need not
	give := check.Command{To: "first", Payload: GiveUp{"x"}, Optional: true}
	m.Commands = append(m.Commands, give)
	m.Reactors[0] = without(m.Reactors[0])
	if r := explore(t, m); len(r.Violations) != 1 {
		t.Errorf("only an optional command ends it: %v", r.Violations)
	}
}

// without is a reactor that sets no deadlines.
func without(r consumer.Reactor) consumer.Reactor {
	return consumer.Reactor{Name: r.Name, React: func(m consumer.Memory,
		e events.Event) (consumer.Effects, error) {
		effects, err := r.React(m, e)
		effects.Schedule = nil
		return effects, err
	}}
}

// What production refuses because the topology does not declare it is a violation, with the way to
// it.
func TestWhatIsNotDeclaredIsAViolation(t *testing.T) {
	t.Parallel()
	outcomes := map[string]string{ // what is refused has no effect on the service either
		"second publishes answered on asked":                 "map[ag:1]",
		"first publishes asked on first.ask":                 "map[:1]",
		"first sets the deadline first.give-up on first.ask": "map[:1]",
	}
	for want, change := range map[string]func(m *check.Model){
		"second publishes answered on asked": func(m *check.Model) {
			m.Topology.Services[1].Reacts[0].Publishes = nil
			m.Topology.Services[1].Commands = []topology.Command{{Does: "answer unasked",
				Type: "second.answer", Publishes: []string{"answered"}}}
		},
		"first publishes asked on first.ask": func(m *check.Model) {
			m.Topology.Services[0].Commands[0].Type = "first.other"
		},
		"first sets the deadline first.give-up on first.ask": func(m *check.Model) {
			m.Topology.Services[0].Commands = m.Topology.Services[0].Commands[:1]
		},
	} {
		m := duel()
		change(&m)
		r := explore(t, m)
		if len(r.Violations) != 1 || !strings.HasPrefix(r.Violations[0].What, want) ||
			len(r.Violations[0].Way) == 0 {
			t.Errorf("%s: %v", want, r.Violations)
		}
		if fmt.Sprint(r.TerminalOutcomes) != outcomes[want] {
			t.Errorf("%s: it ends as %v", want, r.TerminalOutcomes)
		}
	}
}

// A cause is listed once, with the number of its states, and a step of its way has a line.
func TestACauseIsListedOnce(t *testing.T) {
	t.Parallel()
	m := duel()
	m.Always = func(w check.System) error {
		if handled(w) != "" {
			return errors.New("it heard")
		}
		return nil
	}
	r := explore(t, m)
	if len(r.Violations) != 1 || r.Violations[0].States != r.States-1 {
		t.Errorf("%d states: %v", r.States, r.Violations)
	}
	m.Always = func(w check.System) error {
		if strings.HasSuffix(handled(w), "r") {
			return errors.New("it heard")
		}
		return nil
	}
	if text := explore(t, m).Violations[0].String(); strings.Count(text, "\n    ") != 3 {
		t.Errorf("not a line for each step: %s", text)
	}
}

// The causes that are listed are few, and of a long way the first and the last steps are shown.
func TestAReportStaysShort(t *testing.T) {
	t.Parallel()
	m := duel()
	m.Always = func(w check.System) error { return fmt.Errorf("heard %q", handled(w)) } // six of them
	if r := explore(t, m); len(r.Violations) != 5 {
		t.Errorf("%d causes are listed: %v", len(r.Violations), r.Violations)
	}
	for n, want := range map[int]int{40: 40, 41: 41, 100: 41} {
		way := make([]string, n)
		for i := range way {
			way[i] = fmt.Sprint("step ", i)
		}
		text := check.Violation{Way: way}.String()
		if got := strings.Count(text, "\n    "); got != want ||
			strings.Contains(text, fmt.Sprint("… ", n-40, " steps …")) != (n > 40) ||
			!strings.HasSuffix(text, fmt.Sprint("step ", n-1)) || n > 40 &&
			strings.Contains(text, "step 20\n") {
			t.Errorf("%d steps on %d lines: %s", n, got, text)
		}
		for i := n - 20; i < n; i++ {
			if !strings.Contains(text, fmt.Sprint("step ", i)) {
				t.Errorf("step %d of %d is not shown", i, n)
			}
		}
	}
}

// A delivery may happen twice, but it need not: what comes to rest only by a duplicate does not
// come to rest.
func TestADuplicateBringsNothingToRest(t *testing.T) {
	t.Parallel()
	m := ring(func(id string) string { return id }, false)
	expects := func(s *notes) string { n, _ := s.Notes.Get("x"); return n.Heard }
	first := consumer.Participant[notes]{Name: "first",
		Locks: func(s *notes, _ events.Event) { s.Notes.Lock("x") }, React: []consumer.Reaction[notes]{
			consumer.On(func(s *notes, _ events.Of[Ask]) (consumer.Effects, error) {
				s.Notes.Set("x", Note{ID: "x", Heard: "0"})
				return consumer.Publish(Asked{"0"}), nil
			}),
			consumer.On(func(s *notes, e events.Of[Answer]) (consumer.Effects, error) {
				if e.Data.ID != expects(s) { // it came before
					s.Notes.Set("x", Note{ID: "x", Heard: "over"})
					return consumer.Effects{}, nil
				}
				next := map[string]string{"0": "1", "1": "0"}[e.Data.ID]
				s.Notes.Set("x", Note{ID: "x", Heard: next})
				return consumer.Publish(Asked{next}), nil
			}),
			add("g", silent[GiveUp]),
		}}
	m.Reactors[0] = first.Reactor()
	m.Duplicates = 1
	r := explore(t, m)
	if r.TerminalStates == 0 || len(r.Violations) != 1 ||
		!strings.Contains(r.Violations[0].What, "does not come to rest") {
		t.Errorf("%d states of rest: %v", r.TerminalStates, r.Violations)
	}
}
