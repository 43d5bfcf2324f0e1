// Package check explores every interleaving of a choreography's real reactions: each message
// delivered at any time and in any order, some of them twice, each command and each deadline at any
// moment. It checks the invariants in every state, and again wherever nothing more can happen.
//
// It promises to visit every reachable state of a model, or to report that it did not; to report an
// event or a deadline that the topology does not declare, which production refuses, too; and to
// report states from which the choreography cannot come to rest. It runs the reactions that
// production runs, on a memory instead of a database; what it does not model is the infrastructure:
// an event that is published is delivered in the end.
package check

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of an exploration.
const (
	// maxViolations is how many violations are reported, each with one schedule.
	maxViolations = 5
	// DefaultMaxStates is where an exploration stops, unless the model says otherwise: a choreography
	// that counts its own rounds has no end.
	DefaultMaxStates = 2_000_000
	maxCommands      = 32
	// maxSteps is how many steps of a way are listed: the first and the last of a longer one.
	maxSteps    = 40
	maxMessages = 1 << 16
)

// Model is what is explored.
type Model struct {
	Topology topology.Topology
	Reactors []consumer.Reactor         // one for each service of the topology
	Begin    map[string]consumer.Memory // what is in each service's tables at first
	Commands []Command
	// Outside answers the calls that reactions request, by the type of the request: it may change the
	// service's memory, to keep a journal of what the outside has done, and returns the answer, or nil
	// for none.
	Outside map[string]func(m consumer.Memory, request events.Payload) (events.Payload, error)
	// Duplicates is how many deliveries, and calls, may happen twice, in all. The inbox would stop the
	// deliveries; a call whose answer is lost is made again.
	Duplicates int
	// Always is checked in every state, AtRest where nothing more can happen but optional commands.
	Always, AtRest func(System) error
	// Outcome names the way in which a state of rest ended. nil: they are counted as one.
	Outcome   func(System) string
	MaxStates int // stop there and report it; 0: DefaultMaxStates
}

// Command is something that happens once, at any time.
type Command struct {
	To       string // the service
	Payload  events.Payload
	Optional bool // it need not happen
}

// System is a state, for the invariants to look at.
type System struct{ memories map[string]consumer.Memory }

// Row reads a row of a service's table; ok is false when there is none. It panics when the row does
// not fit value, which is a mistake in the model.
func (w System) Row(service, table, key string, value any) (ok bool) {
	ok, err := w.memories[service].Row(table, key, value)
	if err != nil {
		panic(fmt.Sprintf("check: row %s of %s.%s: %v", key, service, table, err))
	}
	return ok
}

// Report is what was found.
type Report struct {
	States           int            `json:"states"`
	TerminalStates   int            `json:"terminal_states"`
	TerminalOutcomes map[string]int `json:"terminal_outcomes"`
	Violations       []Violation    `json:"violations"`
	Complete         bool           `json:"complete"` // every reachable state was visited
	Seconds          float64        `json:"seconds"`
}

// Violation is a cause for which states are wrong: an invariant that they break, an event that the
// topology does not declare, or that nothing comes to rest.
type Violation struct {
	What   string   `json:"what"`
	Way    []string `json:"way"`    // the shortest way to the first of the states
	States int      `json:"states"` // how many there are
}

// String is the violation with a line for each step of the way.
func (v Violation) String() string {
	return fmt.Sprintf("%s (%d states), after:\n    %s", v.What, v.States, lines(v.Way))
}

// lines puts each step of a way on a line.
func lines(way []string) string {
	if n := len(way) - maxSteps; n > 0 {
		way = slices.Concat(way[:maxSteps/2], []string{fmt.Sprintf("… %d steps …", n)},
			way[len(way)-maxSteps/2:])
	}
	return strings.Join(way, "\n    ")
}

// Explore visits every state. It fails when the model is inconsistent or a reaction fails.
func Explore(m Model) (Report, error) {
	began := time.Now()
	x, err := newExplorer(m)
	if err != nil {
		return Report{}, fmt.Errorf("check: %w", err)
	}
	r := Report{TerminalOutcomes: map[string]int{}, Violations: []Violation{}, Complete: true}
	most := cmp.Or(m.MaxStates, DefaultMaxStates)
	for next := 0; next < len(x.states); next++ {
		if next >= most {
			r.Complete = false
			break
		}
		if err := x.look(&r, next); err != nil {
			return Report{}, fmt.Errorf("check: after\n    %s\n%w", lines(x.way(next)), err)
		}
	}
	x.restless(&r)
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// look visits a state and checks the invariants.
func (x *explorer) look(r *Report, at int) error {
	s := x.decode(x.states[at].key)
	rest, err := x.expand(r, at, s)
	if err != nil {
		return err
	}
	r.States++
	broken := x.always(s)
	if rest {
		x.states[at].rest = true
		r.TerminalStates++
		if x.model.AtRest != nil {
			broken = errors.Join(broken, x.model.AtRest(x.system(s)))
		}
		outcome := "at rest"
		if x.model.Outcome != nil {
			outcome = x.model.Outcome(x.system(s))
		}
		r.TerminalOutcomes[outcome]++
	}
	if broken != nil {
		r.violated(broken.Error(), func() []string { return x.way(at) })
	}
	return nil
}

// violated notes a cause, which is listed once, with the way to the state where it was met first.
func (r *Report) violated(what string, way func() []string) {
	at := slices.IndexFunc(r.Violations, func(v Violation) bool { return v.What == what })
	switch {
	case at >= 0:
		r.Violations[at].States++
	case len(r.Violations) < maxViolations:
		r.Violations = append(r.Violations, Violation{What: what, Way: way(), States: 1})
	}
}

// always checks the invariant, once for each combination of what the services know: messages on
// their way change nothing about that.
func (x *explorer) always(s state) error {
	if x.model.Always == nil {
		return nil
	}
	key := string(appendNumbers(nil, s.memories))
	answer, asked := x.answers[key]
	if !asked {
		answer = x.model.Always(x.system(s))
		x.answers[key] = answer
	}
	return answer
}

// way returns the moves from the beginning to a state.
func (x *explorer) way(index int) []string {
	var moves []string
	for ; index > 0; index = x.states[index].parent {
		moves = append(moves, x.report(x.states[index].move))
	}
	slices.Reverse(moves)
	return moves
}

// state is one state, by the numbers under which the explorer keeps memories and messages.
type state struct {
	memories []uint32 // of each service
	inFlight []uint32 // messages on their way, sorted: to<<16 | message
	due      []uint32 // deadlines that are set, sorted, in the same form
	requests []uint32 // calls that are requested, sorted, in the same form
	commands uint32   // which are left, as bits
	doubles  uint32   // how many duplicates are left
}

func (s state) encode() string {
	b := make([]byte, 0, 4*(len(s.memories)+len(s.inFlight)+len(s.due)+len(s.requests)+4))
	for _, list := range [][]uint32{s.memories,
		{s.commands, s.doubles, uint32(len(s.inFlight)), uint32(len(s.requests))},
		s.inFlight, s.requests, s.due} {
		b = appendNumbers(b, list)
	}
	return string(b)
}

func appendNumbers(b []byte, list []uint32) []byte {
	for _, n := range list {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

func (x *explorer) decode(key string) state {
	numbers := make([]uint32, len(key)/4)
	for i := range numbers {
		numbers[i] = binary.LittleEndian.Uint32([]byte(key[4*i : 4*i+4]))
	}
	n := len(x.model.Reactors)
	inFlight, requests := int(numbers[n+2]), int(numbers[n+3])
	at := n + 4
	return state{
		memories: numbers[:n], commands: numbers[n], doubles: numbers[n+1],
		inFlight: numbers[at : at+inFlight],
		requests: numbers[at+inFlight : at+inFlight+requests],
		due:      numbers[at+inFlight+requests:],
	}
}
