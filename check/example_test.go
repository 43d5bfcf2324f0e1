package check_test

import (
	"errors"
	"fmt"

	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// The door of the example is opened by one command and closed by another one.
type (
	Open   struct{}
	Close  struct{}
	Opened struct{}
	Closed struct{}
)

func (Open) EventType() string   { return "door.open" }
func (Close) EventType() string  { return "door.close" }
func (Opened) EventType() string { return "door.opened" }
func (Closed) EventType() string { return "door.closed" }
func (Open) Subject() string     { return "1" }
func (Close) Subject() string    { return "1" }
func (Opened) Subject() string   { return "1" }
func (Closed) Subject() string   { return "1" }

// Lamp is a row.
type Lamp struct {
	ID string `db:"id"`
	On bool   `db:"on_now"`
}

type lamps struct {
	Lamps consumer.Rows[string, Lamp] `table:"lamps" key:"id"`
}

func set[T events.Payload](on bool) consumer.Reaction[lamps] {
	return consumer.On(func(s *lamps, e events.Of[T]) (consumer.Effects, error) {
		s.Lamps.Set("1", Lamp{ID: "1", On: on})
		return consumer.Effects{}, nil
	})
}

func publishes[T events.Payload](payload events.Payload) consumer.Reaction[lamps] {
	return consumer.On(func(*lamps, events.Of[T]) (consumer.Effects, error) {
		return consumer.Publish(payload), nil
	})
}

// A lamp is on while the door is open. Events arrive in any order, so that the lamp may receive
// "closed" before "opened" and stay on. Explore finds this, with the shortest way to it.
func ExampleExplore() {
	locks := func(s *lamps, _ events.Event) { s.Lamps.Lock("1") }
	door := consumer.Participant[lamps]{Name: "door", Locks: locks,
		React: []consumer.Reaction[lamps]{publishes[Open](Opened{}), publishes[Close](Closed{})}}
	lamp := consumer.Participant[lamps]{Name: "lamp", Locks: locks,
		React: []consumer.Reaction[lamps]{set[Opened](true), set[Closed](false)}}
	report, err := check.Explore(check.Model{
		Topology: topology.Topology{Name: "house", Services: []topology.Service{
			{Name: "door", Commands: []topology.Command{
				{Type: "door.open", Does: "open", Publishes: []string{"door.opened"}},
				{Type: "door.close", Does: "close", Publishes: []string{"door.closed"}}}},
			{Name: "lamp", Reacts: []topology.Reaction{
				{Handles: "door.opened", Does: "switch on"},
				{Handles: "door.closed", Does: "switch off"}}},
		}},
		Reactors: []consumer.Reactor{door.Reactor(), lamp.Reactor()},
		Commands: []check.Command{{To: "door", Payload: Open{}}, {To: "door", Payload: Close{}}},
		AtRest: func(s check.System) error {
			if l := (Lamp{}); s.Row("lamp", "lamps", "1", &l) && l.On {
				return errors.New("the lamp is on")
			}
			return nil
		},
		Outcome: func(check.System) string { return "" },
	})
	fmt.Println(report.Violations[0], err)
	// Output:
	// the lamp is on (1 states), after:
	//     door.open of 1 → door (command)
	//     door.close of 1 → door (command)
	//     door.closed of 1 → lamp
	//     door.opened of 1 → lamp <nil>
}
