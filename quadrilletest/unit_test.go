package quadrilletest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// visits is the working set of the participant door, which counts who has come.
type visits struct {
	Visitors consumer.Rows[string, visitor] `table:"visitors" key:"id"`
}

type visitor struct {
	ID    string    `db:"id"`
	Times int       `db:"times"`
	Last  time.Time `db:"last"`
}

func door() consumer.Participant[visits] {
	return consumer.Participant[visits]{Name: "mail",
		Locks: func(s *visits, e events.Event) { s.Visitors.Lock(e.Data.Subject()) },
		React: []consumer.Reaction[visits]{consumer.On(
			func(s *visits, e events.Of[joined]) (consumer.Effects, error) {
				v, _ := s.Visitors.Get(e.Data.ID)
				if v.Times == 2 {
					return consumer.Effects{}, consumer.Refuse(consumer.Conflict, "%s comes too often", v.ID)
				}
				s.Visitors.Set(e.Data.ID, visitor{e.Data.ID, v.Times + 1, e.Time})
				return consumer.Publish(greeted(e.Data)), nil
			})}}
}

func TestReact(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	right := quadrilletest.Case{
		Given:   []any{visitor{"x", 1, at}},
		When:    []events.Payload{joined{"1"}, joined{"1"}},
		At:      at,
		Rows:    []any{visitor{"1", 2, at}, visitor{"x", 1, at}},
		Effects: consumer.Publish(greeted{"1"}, greeted{"1"}),
	}
	quadrilletest.React(t, door(), right)
	refused := quadrilletest.Case{Given: []any{visitor{"1", 2, at}},
		When: []events.Payload{joined{"1"}}, Refused: consumer.Conflict}
	quadrilletest.React(t, door(), refused)
	for want, change := range map[string]func(c *quadrilletest.Case){
		"leaves these rows": func(c *quadrilletest.Case) { c.Rows = c.Rows[:1] },
		`"Times":3`:         func(c *quadrilletest.Case) { c.Rows = []any{visitor{"1", 3, at}} },
		"has the effects": func(c *quadrilletest.Case) {
			c.Effects = consumer.Publish(greeted{"1"})
		},
		"refuses nothing":       func(c *quadrilletest.Case) { c.Refused = consumer.Conflict },
		"no reaction to user.g": func(c *quadrilletest.Case) { c.When = []events.Payload{greeted{"1"}} },
		"comes too often":       func(c *quadrilletest.Case) { c.When = append(c.When, joined{"1"}) },
		"is not the row type":   func(c *quadrilletest.Case) { c.Given = []any{"a string"} },
	} {
		wrong := right
		change(&wrong)
		why := failing(t, func(t testing.TB) { quadrilletest.React(t, door(), wrong) })
		if !strings.Contains(why, want) {
			t.Errorf("%q is not in the failure: %s", want, why)
		}
	}
}

// A state that breaks an invariant is shown with the steps that lead to it.
func TestCheckShowsTheWay(t *testing.T) {
	t.Parallel()
	model := check.Model{
		Topology: topology.Topology{Name: "doors", Services: []topology.Service{
			{Name: "members", Commands: []topology.Command{{Does: "join",
				Publishes: []string{"user.joined"}}}},
			{Name: "mail", Reacts: []topology.Reaction{{Handles: "user.joined", Does: "greet",
				Publishes: []string{"user.greeted"}}}},
		}},
		Reactors: []consumer.Reactor{door().Reactor(), {Name: "members",
			React: func(_ consumer.Memory, e events.Event) (consumer.Effects, error) {
				return consumer.Publish(e.Data), nil
			}}},
		Commands: []check.Command{{To: "members", Payload: joined{"1"}}},
	}
	if r := quadrilletest.Check(t, model); r.States == 0 {
		t.Errorf("nothing was explored: %+v", r)
	}
	model.AtRest = func(s check.System) error {
		var v visitor
		if s.Row("mail", "visitors", "1", &v) {
			return errors.New("somebody has come")
		}
		return nil
	}
	why := failing(t, func(t testing.TB) { quadrilletest.Check(t, model) })
	if !strings.Contains(why, "somebody has come") || !strings.Contains(why, "user.joined") {
		t.Errorf("the failure does not show the way: %s", why)
	}
	model.AtRest, model.MaxStates = nil, 1
	why = failing(t, func(t testing.TB) { quadrilletest.Check(t, model) })
	if !strings.Contains(why, "MaxStates") {
		t.Errorf("an incomplete exploration: %s", why)
	}
}

// WaitFor fails with what it has seen last.
func TestWaitForSaysWhatItSaw(t *testing.T) {
	t.Parallel()
	why := failing(t, func(t testing.TB) {
		quadrilletest.WaitAtMost(t, time.Millisecond, "the kettle boils", func() (bool, string) {
			return false, "it is at 99 °C"
		})
	})
	if !strings.Contains(why, "the kettle boils") || !strings.Contains(why, "99 °C") {
		t.Errorf("the failure is %q", why)
	}
	calls := 0
	quadrilletest.WaitFor(t, "the third call", func() (bool, string) {
		calls++
		return calls == 3, ""
	})
}
