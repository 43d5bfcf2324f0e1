package lint

import (
	"fmt"
	"slices"

	"github.com/quadrille-go/quadrille/topology"
)

func callRules() []Rule {
	return []Rule{
		{"call-unrequested", "a call that no reaction and no command requests",
			"It can never be made: the code is dead, or the request was forgotten.",
			"Remove it, or declare which step requests it.", each(unrequested)},
		{"call-unanswered", "a call without answers",
			"Whatever the outside replies, the service never learns it, and the flow cannot depend on it.",
			"Declare a command for each outcome as an answer. Accept it if the outcome does not matter.",
			each(unanswered)},
		{"call-never-refused", "a call with only one answer",
			"The outside may refuse. Without an answer for it, a refusal is retried and then parked, and " +
				"a person must end the flow.",
			"Declare a second command that publishes the refusal or undoes the step.", each(neverRefused)},
		{"call-irrevocable", "a call that nothing undoes, requested by a step that is undone",
			"When the step is undone, the outside keeps what it has done: the card stays charged.",
			"Add a call that undoes it (Undoes), and request it where the step is undone.",
			each(irrevocable)},
	}
}

// each applies a rule to each call. The rule returns what it has found, or "".
func each(rule func(g graph, s topology.Service, c topology.Call) string) func(g graph) []Finding {
	return func(g graph) (found []Finding) {
		for _, s := range g.Services {
			for _, c := range s.Calls {
				if text := rule(g, s, c); text != "" {
					found = append(found, Finding{Object: s.Name + ": " + c.Does, Found: text})
				}
			}
		}
		return found
	}
}

// requesters returns the steps that request a call.
func (g graph) requesters(service string, c topology.Call) (steps []step) {
	for _, s := range g.steps {
		if s.service == service && slices.Contains(s.requests, c.Type) {
			steps = append(steps, s)
		}
	}
	return steps
}

func unrequested(g graph, s topology.Service, c topology.Call) string {
	if len(g.requesters(s.Name, c)) > 0 {
		return ""
	}
	return "nothing requests " + c.Type
}

func unanswered(_ graph, _ topology.Service, c topology.Call) string {
	if len(c.Answers) > 0 {
		return ""
	}
	return "nothing learns the outcome of " + c.Type
}

func neverRefused(_ graph, _ topology.Service, c topology.Call) string {
	if len(c.Answers) != 1 {
		return ""
	}
	return "its only answer is " + c.Answers[0]
}

func irrevocable(g graph, s topology.Service, c topology.Call) string {
	if c.Undoes != "" || g.undone(s.Name, c.Does) {
		return ""
	}
	for _, r := range g.requesters(s.Name, c) {
		if g.undone(s.Name, r.does) {
			return fmt.Sprintf("%q requests it and is undone, but nothing undoes the call", r.does)
		}
	}
	return ""
}
