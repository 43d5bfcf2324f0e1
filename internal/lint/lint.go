// Package lint looks for what is suspicious in a topology that is valid: events that nobody
// handles, steps that nothing undoes, flows that may wait without an end.
//
// A rule is a pure function of the topology. Each has a name, and says what it finds, why that
// matters and what to do. A finding may be meant so; then whoever owns the topology accepts it with
// a reason.
package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/quadrille-go/quadrille/topology"
)

// Rule is a rule with its explanation.
type Rule struct {
	Name  string `json:"name"`
	Finds string `json:"finds"`
	Why   string `json:"why"`
	Do    string `json:"do"`
	check func(g graph) []Finding
}

// Finding is what a rule has found. Object is the name of an event, a service, or a service with
// one of its steps ("orders: place").
type Finding struct {
	Rule     string `json:"rule"`
	Object   string `json:"object"`
	Found    string `json:"found"`
	Accepted string `json:"accepted,omitempty"` // why it is meant so
}

// Rules returns all rules, sorted by name.
func Rules() []Rule {
	rules := slices.Concat(eventRules(), stepRules(), serviceRules(), callRules())
	slices.SortFunc(rules, func(a, b Rule) int { return cmp.Compare(a.Name, b.Name) })
	return rules
}

// Check returns what the rules find in a valid topology. A finding is accepted if there is a reason
// under its rule and object, such as "event-unhandled order.archived". A reason that no finding
// needs is a finding itself, since it would hide a later one.
func Check(t topology.Topology, accepted map[string]string) ([]Finding, error) {
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("lint topology: %w", err)
	}
	g := newGraph(t)
	found, used := []Finding{}, map[string]bool{}
	for _, r := range Rules() {
		for _, f := range r.check(g) {
			key := r.Name + " " + f.Object
			f.Rule, f.Accepted, used[key] = r.Name, accepted[key], true
			found = append(found, f)
		}
	}
	for key := range accepted {
		if !used[key] {
			found = append(found, Finding{Rule: "unused-reason", Object: key,
				Found: "it is accepted, but no rule finds it"})
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Object, b.Object))
	})
	return found, nil
}
