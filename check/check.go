// Package check explores every interleaving of a choreography's real reactions: each message
// delivered at any time and in any order, some of them twice, each command and each deadline at any
// moment. It asks for the invariants in every state, and again wherever nothing more can happen.
//
// It promises to visit every reachable state of a model, or to say that it did not. It runs the
// reactions that production runs, on a memory instead of a database; what it does not model is the
// infrastructure: an event that is said is delivered in the end.
package check

import (
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

// maxViolations is how many violations are reported.
const maxViolations = 5

// Model is what is explored.
type Model struct {
	Topology   topology.Topology
	Reactors   []consumer.Reactor         // one for each service of the topology
	Begin      map[string]consumer.Memory // what is in each service's tables at first
	Commands   []Command
	Duplicates int // how many deliveries may happen twice, in all; the inbox would stop them
	// Always is asked in every state, AtRest where nothing more can happen but optional commands.
	Always, AtRest func(World) error
	// Outcome names the way in which a state of rest ended.
	Outcome   func(World) string
	MaxStates int // stop there and say so; 0: no bound
}

// Command is something that happens once, at any time.
type Command struct {
	To       string // the service
	Payload  events.Payload
	Optional bool // it need not happen
}

// World is a state, for the invariants to look at.
type World struct{ memories map[string]consumer.Memory }

// Row reads a row of a service's table; ok is false when there is none. It panics when the row does
// not fit value, which is a mistake in the model.
func (w World) Row(service, table, key string, value any) (ok bool) {
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

// Violation is a state that breaks an invariant, with the shortest way to it.
type Violation struct {
	What string   `json:"what"`
	Way  []string `json:"way"`
}

// Explore visits every state. It fails when the model is inconsistent or a reaction fails.
func Explore(m Model) (Report, error) {
	began := time.Now()
	x, err := newExplorer(m)
	if err != nil {
		return Report{}, fmt.Errorf("check: %w", err)
	}
	r := Report{TerminalOutcomes: map[string]int{}, Violations: []Violation{}, Complete: true}
	for next := 0; next < len(x.states); next++ {
		if m.MaxStates > 0 && next >= m.MaxStates {
			r.Complete = false
			break
		}
		s := x.decode(x.states[next].key)
		rest, err := x.expand(next, s)
		if err != nil {
			return Report{}, fmt.Errorf("check: after %s: %w", strings.Join(x.way(next), ", "), err)
		}
		r.States++
		broken := x.always(s)
		if rest {
			r.TerminalStates++
			if m.AtRest != nil {
				broken = errors.Join(broken, m.AtRest(x.world(s)))
			}
			r.TerminalOutcomes[m.Outcome(x.world(s))]++
		}
		if broken != nil && len(r.Violations) < maxViolations {
			r.Violations = append(r.Violations, Violation{What: broken.Error(), Way: x.way(next)})
		}
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// always asks the invariant, once for what the services know: messages on their way change nothing
// about that.
func (x *explorer) always(s state) error {
	if x.model.Always == nil {
		return nil
	}
	key := string(appendNumbers(nil, s.memories))
	answer, asked := x.answers[key]
	if !asked {
		answer = x.model.Always(x.world(s))
		x.answers[key] = answer
	}
	return answer
}

// way returns the moves from the beginning to a state.
func (x *explorer) way(index int) []string {
	var moves []string
	for ; index > 0; index = x.states[index].parent {
		moves = append(moves, x.tell(x.states[index].move))
	}
	slices.Reverse(moves)
	return moves
}

// state is one state, by the numbers under which the explorer keeps memories and messages.
type state struct {
	memories []uint32 // of each service
	flying   []uint32 // messages on their way, sorted: to<<16 | message
	due      []uint32 // deadlines that are set, sorted, in the same form
	commands uint32   // which are left, as bits
	doubles  uint32   // how many duplicates are left
}

func (s state) encode() string {
	b := make([]byte, 0, 4*(len(s.memories)+len(s.flying)+len(s.due)+3))
	for _, list := range [][]uint32{s.memories, {s.commands, s.doubles, uint32(len(s.flying))}, s.flying, s.due} {
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
	flying := int(numbers[n+2])
	return state{
		memories: numbers[:n], commands: numbers[n], doubles: numbers[n+1],
		flying: numbers[n+3 : n+3+flying], due: numbers[n+3+flying:],
	}
}
