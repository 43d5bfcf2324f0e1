package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// now is the time of every event: time must not distinguish states.
var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// explorer keeps memories and messages under numbers, so that a state is a few numbers, and a
// reaction is run once for each pair of a memory and a message.
type explorer struct {
	model    Model
	index    map[string]int // service → its place in Reactors
	memories []consumer.Memory
	memoryNo map[string]uint32
	messages []events.Payload
	number   map[string]uint32
	steps    map[[3]uint32]step
	states   []visited
	seen     map[string]int   // a state's place in states
	answers  map[string]error // of the invariant Always
	commands []uint32         // the model's, as messages
	onward   []edge           // the moves that happen in the end
}

type visited struct {
	key    string
	parent int
	move   move
	rest   bool // nothing more happens by itself
}

// edge is a move from one state to another.
type edge struct {
	from, to int
	move     move
}

// move is how a state was reached: a message, and the manner of its delivery.
type move struct {
	message uint32
	how     string
}

// step is what one message does to one memory.
type step struct {
	memory   uint32
	inFlight []uint32
	due      []uint32
	requests []uint32
	fault    string // what production would refuse, so that the message would be parked
}

func newExplorer(m Model) (*explorer, error) {
	x := &explorer{
		model: m, index: map[string]int{}, memoryNo: map[string]uint32{}, number: map[string]uint32{},
		steps: map[[3]uint32]step{}, seen: map[string]int{}, answers: map[string]error{},
	}
	if err := m.Topology.Validate(); err != nil {
		return nil, err
	}
	if len(m.Commands) > maxCommands {
		return nil, fmt.Errorf("the model has %d commands, at most %d can be explored", len(m.Commands),
			maxCommands)
	}
	first := state{doubles: uint32(m.Duplicates), commands: 1<<len(m.Commands) - 1}
	for i, r := range m.Reactors {
		x.index[r.Name] = i
		begin := m.Begin[r.Name]
		if begin == nil {
			begin = consumer.Memory{}
		}
		first.memories = append(first.memories, x.remember(begin))
	}
	for _, s := range m.Topology.Services {
		if _, ok := x.index[s.Name]; !ok {
			return nil, fmt.Errorf("no reactor for service %s", s.Name)
		}
	}
	for _, c := range m.Commands {
		if _, ok := x.index[c.To]; !ok {
			return nil, fmt.Errorf("command %s is for %s, which is no service", c.Payload.EventType(), c.To)
		}
		message, err := x.message(x.index[c.To], c.Payload)
		if err != nil {
			return nil, err
		}
		x.commands = append(x.commands, message)
	}
	x.visit(first, 0, move{}, false)
	return x, nil
}

func (x *explorer) remember(m consumer.Memory) uint32 {
	key := m.String()
	n, ok := x.memoryNo[key]
	if !ok {
		n = uint32(len(x.memories))
		x.memoryNo[key], x.memories = n, append(x.memories, m)
	}
	return n
}

// message returns a message to a service in the form of state.flying.
func (x *explorer) message(to int, p events.Payload) (uint32, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return 0, err
	}
	key := p.EventType() + " " + string(data)
	n, ok := x.number[key]
	if !ok {
		if len(x.messages) == maxMessages {
			return 0, fmt.Errorf("there are more than %d different messages: a payload that differs each "+
				"time, such as a counter, has no end", maxMessages)
		}
		n = uint32(len(x.messages))
		x.number[key], x.messages = n, append(x.messages, p)
	}
	return uint32(to)<<16 | n, nil
}

// visit notes a state and the move to it. A move that must happen leads onward.
func (x *explorer) visit(s state, parent int, m move, must bool) {
	key := s.encode()
	at, seen := x.seen[key]
	if !seen {
		at = len(x.states)
		x.seen[key] = at
		x.states = append(x.states, visited{key: key, parent: parent, move: m})
	}
	if must {
		x.onward = append(x.onward, edge{parent, at, m})
	}
}

func (x *explorer) system(s state) System {
	w := System{memories: make(map[string]consumer.Memory, len(s.memories))}
	for i, n := range s.memories {
		w.memories[x.model.Reactors[i].Name] = x.memories[n]
	}
	return w
}

// expand visits all that can happen next; rest tells whether only optional commands can.
func (x *explorer) expand(r *Report, at int, s state) (rest bool, err error) {
	rest = true
	deliver := func(next state, message uint32, how string, must bool) error {
		return x.deliver(r, at, next, move{message, how}, must)
	}
	for i, m := range s.inFlight {
		rest = false
		if i > 0 && s.inFlight[i-1] == m {
			continue // the same message twice: delivering either is the same move
		}
		next := s
		next.inFlight = slices.Delete(slices.Clone(s.inFlight), i, i+1)
		if err := deliver(next, m, "", true); err != nil {
			return false, err
		}
		if s.doubles > 0 {
			next := s
			next.doubles--
			if err := deliver(next, m, " (and again later)", false); err != nil {
				return false, err
			}
		}
	}
	for i, m := range s.due {
		rest = false
		next := s
		next.due = slices.Delete(slices.Clone(s.due), i, i+1)
		if err := deliver(next, m, " (deadline)", true); err != nil {
			return false, err
		}
	}
	called, err := x.expandCalls(r, at, s)
	if err != nil {
		return false, err
	}
	rest = rest && !called
	for i, c := range x.model.Commands {
		if s.commands&(1<<i) == 0 {
			continue
		}
		rest = rest && c.Optional
		next := s
		next.commands &^= 1 << i
		if err := deliver(next, x.commands[i], " (command)", !c.Optional); err != nil {
			return false, err
		}
	}
	return rest, nil
}
