package lint

import (
	"fmt"
	"slices"
	"strings"
)

func stepRules() []Rule {
	return []Rule{
		{"undo-missing", "a step that nothing undoes, although what follows it may fail",
			"When a later service refuses, the others take their steps back and this one stays done: " +
				"money taken, stock reserved.",
			"Declare which reaction undoes it (Undoes), or publish nothing that a refusal can follow.",
			undoMissing},
		{"undo-unreachable", "a step that undoes what can never happen",
			"The compensation protects nothing, and hides that the step it names has lost its cause.",
			"Remove it, or restore what causes the step that it undoes.", undoUnreachable},
		{"undo-circular", "two steps that undo each other, or one that undoes itself",
			"A compensation is final. If it is undone in turn, the order in which events arrive decides " +
				"the result.",
			"Let one of them be a new step of its own.", undoCircular},
		{"step-unreachable", "a reaction or an answer that can never happen",
			"Its event is never published, or nothing requests its call: the code is dead, or its cause " +
				"was forgotten.",
			"Remove it, or publish what it waits for.", stepUnreachable},
		{"step-ambiguous", "one word for two steps of a service that publish different events",
			"Undoes refers to a step by this word, and so do traces and diagrams: a reader cannot tell " +
				"which one is meant.",
			"Give one of them another word.", stepAmbiguous},
		{"deadline-missing", "a service that begins a flow, waits for its result and sets no deadline",
			"If an event on the way is parked or its service is away, the flow stays open without an end, " +
				"and so does what was done for it.",
			"Add a command with After that ends the flow, and set it as a deadline when the flow begins.",
			deadlineMissing},
		{"deadline-silent", "a deadline that publishes nothing and requests nothing",
			"The other services never learn that the time is over, and keep what they have done.",
			"Publish an event that they react to, or use a timer of the service's own.", deadlineSilent},
		{"command-name", "a command or a call whose type does not begin with the name of its service",
			"These types are in traces, metrics and tables next to the events of all services. Without " +
				"the service's name they look like events, and two services may use the same.",
			"Name it service.verb, such as orders.cancel.", commandName},
	}
}

func undoMissing(g graph) (found []Finding) {
	for _, e := range g.Types() {
		publishers := g.publishers(e)
		if g.undoing(e) || slices.ContainsFunc(publishers, func(s step) bool {
			return s.undoes != "" || g.undone(s.service, s.does)
		}) {
			continue
		}
		for _, later := range g.Types() {
			if g.after(e)[later] && g.undoing(later) {
				found = append(found, Finding{Object: publishers[0].name(), Found: fmt.Sprintf(
					"it publishes %s, which %s may follow, and nothing undoes it", e, later)})
				break
			}
		}
	}
	return found
}

func undoUnreachable(g graph) (found []Finding) {
	for _, s := range g.steps {
		if s.undoes == "" {
			continue
		}
		service, _ := g.Service(s.service)
		possible := false
		for i, other := range g.steps {
			possible = possible || other.service == s.service && other.does == s.undoes && g.liveSteps[i]
		}
		for _, c := range service.Calls {
			possible = possible || c.Does == s.undoes
		}
		if !possible {
			found = append(found, Finding{Object: s.name(),
				Found: fmt.Sprintf("it undoes %q, which cannot happen", s.undoes)})
		}
	}
	return found
}

func undoCircular(g graph) (found []Finding) {
	for _, s := range g.steps {
		if s.undoes == "" {
			continue
		}
		for _, other := range g.steps {
			if other.service == s.service && other.does == s.undoes && other.undoes == s.does {
				found = append(found, Finding{Object: s.name(),
					Found: fmt.Sprintf("it undoes %q, which undoes %q", s.undoes, s.does)})
				break
			}
		}
	}
	return found
}

func stepUnreachable(g graph) (found []Finding) {
	for i, s := range g.steps {
		switch {
		case g.liveSteps[i]:
		case s.reaction:
			found = append(found, Finding{Object: s.name(), Found: s.cause + " is never published"})
		default:
			found = append(found, Finding{Object: s.name(),
				Found: "nothing that can happen requests the call that " + s.cause + " answers"})
		}
	}
	return found
}

// stepAmbiguous compares what the steps of one service with the same word publish.
func stepAmbiguous(g graph) (found []Finding) {
	first := map[string]step{}
	for _, s := range g.steps {
		other, known := first[s.name()]
		if !known {
			first[s.name()] = s
			continue
		}
		a, b := slices.Sorted(slices.Values(other.publishes)), slices.Sorted(slices.Values(s.publishes))
		if !slices.Equal(a, b) {
			found = append(found, Finding{Object: s.name(), Found: fmt.Sprintf(
				"it publishes %s because of %s, and %s because of %s", list(a), other.why(), list(b), s.why())})
		}
	}
	return found
}

func (s step) why() string {
	if s.cause == "" {
		return "a command"
	}
	return s.cause
}

func list(events []string) string {
	if len(events) == 0 {
		return "nothing"
	}
	return strings.Join(events, " and ")
}

// deadlineMissing looks for a service that begins a flow with a command and has a reaction to what
// follows that is not an undoing: it waits for that.
func deadlineMissing(g graph) (found []Finding) {
	for _, s := range g.Services {
		if slices.ContainsFunc(g.steps, func(x step) bool {
			return x.service == s.Name && x.after > 0
		}) {
			continue
		}
	begins:
		for _, x := range g.steps {
			if x.service != s.Name || x.reaction || x.answer {
				continue
			}
			for _, e := range x.publishes {
				after := g.after(e)
				for _, r := range s.Reacts {
					if after[r.Handles] && r.Undoes == "" {
						found = append(found, Finding{Object: s.Name, Found: fmt.Sprintf(
							"it begins with %s, waits for %s and has no deadline", e, r.Handles)})
						break begins
					}
				}
			}
		}
	}
	return found
}

func deadlineSilent(g graph) (found []Finding) {
	for _, s := range g.steps {
		if s.after > 0 && len(s.publishes)+len(s.requests) == 0 {
			found = append(found, Finding{Object: s.name(),
				Found: fmt.Sprintf("after %s it publishes nothing", s.after)})
		}
	}
	return found
}

func commandName(g graph) (found []Finding) {
	for _, s := range g.Services {
		types := map[string]string{}
		for _, c := range s.Commands {
			types[c.Type] = c.Does
		}
		for _, c := range s.Calls {
			types[c.Type] = c.Does
		}
		for kind, does := range types {
			if kind != "" && !strings.HasPrefix(kind, s.Name+".") {
				found = append(found, Finding{Object: s.Name + ": " + does, Found: "its type is " + kind})
			}
		}
	}
	return found
}
