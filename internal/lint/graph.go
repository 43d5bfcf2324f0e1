package lint

import (
	"slices"
	"time"

	"github.com/quadrille-go/quadrille/topology"
)

// step is a command or a reaction.
type step struct {
	service   string
	does      string
	cause     string // the event that it handles, or the type of the command, which may be empty
	reaction  bool
	answer    bool // a command that answers a call
	publishes []string
	requests  []string
	undoes    string
	after     time.Duration
}

func (s step) name() string { return s.service + ": " + s.does }

// graph is a topology as a graph of steps and events.
type graph struct {
	topology.Topology
	steps []step
	// live are the events that can be published, beginning with commands that a person or a program
	// may run, and the steps that can happen.
	live      map[string]bool
	liveSteps map[int]bool
}

func newGraph(t topology.Topology) graph {
	g := graph{Topology: t, live: map[string]bool{}, liveSteps: map[int]bool{}}
	for _, s := range t.Services {
		var answers []string
		for _, c := range s.Calls {
			answers = append(answers, c.Answers...)
		}
		for _, c := range s.Commands {
			g.steps = append(g.steps, step{service: s.Name, does: c.Does, cause: c.Type,
				answer: c.Type != "" && slices.Contains(answers, c.Type), publishes: c.Publishes,
				requests: c.Requests, undoes: c.Undoes, after: c.After})
		}
		for _, r := range s.Reacts {
			g.steps = append(g.steps, step{service: s.Name, does: r.Does, cause: r.Handles,
				reaction: true, publishes: r.Publishes, requests: r.Requests, undoes: r.Undoes})
		}
	}
	g.enliven()
	return g
}

// enliven finds what can happen. A command that answers a call can be run only after a step that
// can happen has requested the call.
func (g graph) enliven() {
	requested := map[string]bool{}
	for changed := true; changed; {
		changed = false
		for i, s := range g.steps {
			if g.liveSteps[i] || s.reaction && !g.live[s.cause] || s.answer && !g.answered(s, requested) {
				continue
			}
			g.liveSteps[i], changed = true, true
			for _, e := range s.publishes {
				g.live[e] = true
			}
			for _, r := range s.requests {
				requested[s.service+" "+r] = true
			}
		}
	}
}

func (g graph) answered(s step, requested map[string]bool) bool {
	service, _ := g.Service(s.service)
	return slices.ContainsFunc(service.Calls, func(c topology.Call) bool {
		return requested[s.service+" "+c.Type] && slices.Contains(c.Answers, s.cause)
	})
}

// next returns the events that are published because of an event, without those of answers to calls
// unless a reaction requests the call.
func (g graph) next(event string) (events []string) {
	for _, s := range g.steps {
		if !s.reaction || s.cause != event {
			continue
		}
		events = append(events, s.publishes...)
		service, _ := g.Service(s.service)
		for _, request := range s.requests {
			call, _ := service.Call(request)
			for _, answer := range call.Answers {
				command, _ := service.Command(answer)
				events = append(events, command.Publishes...)
			}
		}
	}
	slices.Sort(events)
	return slices.Compact(events)
}

// after returns all events that may follow an event, without the event itself unless it follows
// itself.
func (g graph) after(event string) map[string]bool {
	all, queue := map[string]bool{}, g.next(event)
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		if !all[e] {
			all[e] = true
			queue = append(queue, g.next(e)...)
		}
	}
	return all
}

// undoing reports whether a reaction to an event undoes something.
func (g graph) undoing(event string) bool {
	return slices.ContainsFunc(g.steps, func(s step) bool {
		return s.reaction && s.cause == event && s.undoes != ""
	})
}

// publishers returns the steps that publish an event.
func (g graph) publishers(event string) (steps []step) {
	for _, s := range g.steps {
		if slices.Contains(s.publishes, event) {
			steps = append(steps, s)
		}
	}
	return steps
}

// undone reports whether a step of the service undoes what has this name.
func (g graph) undone(service, does string) bool {
	if slices.ContainsFunc(g.steps, func(s step) bool {
		return s.service == service && s.undoes == does
	}) {
		return true
	}
	of, _ := g.Service(service)
	return slices.ContainsFunc(of.Calls, func(c topology.Call) bool { return c.Undoes == does })
}
