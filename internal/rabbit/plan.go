package rabbit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/topology"
)

// The actions of a plan, in its order.
const (
	Add    = "add"    // Apply declares it
	Change = "change" // it differs, and a broker cannot change it; the step says what to do
	Remove = "remove" // Prune deletes it
)

// Step is one line of a plan: what must happen to an object, and why.
type Step struct {
	Action string `json:"action"`
	Object string `json:"object"`
	Reason string `json:"reason"`
	Next   string `json:"next,omitempty"` // what to do, if Apply and Prune do not do it
}

// Plan compares a broker with a topology and returns what must happen until they agree. Only what
// an earlier version of the topology has declared, according to its markers, is to be removed.
func Plan(ctx context.Context, managementURL, brokerURL string, t topology.Topology) ([]Step,
	error) {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	l, err := inspect(ctx, managementURL, brokerURL)
	if err != nil {
		return nil, fmt.Errorf("plan topology: %w", err)
	}
	var steps []Step
	for _, f := range slices.Concat(l.exchanges(t), l.queues(t), l.bindings(t)) {
		switch f.Kind {
		case Missing:
			steps = append(steps, Step{Add, f.Object, "it is not on the broker", ""})
		case Conflict:
			steps = append(steps, Step{Change, f.Object, f.Detail, f.Remedy})
		}
	}
	for _, o := range l.obsolete(t) {
		steps = append(steps, Step{Remove, o.title(), "only " + o.marker + " declares it", ""})
	}
	order := []string{Add, Change, Remove}
	slices.SortStableFunc(steps, func(a, b Step) int {
		if a.Action != b.Action {
			return slices.Index(order, a.Action) - slices.Index(order, b.Action)
		}
		if a.Action == Remove {
			return 0 // in the order in which they are removed
		}
		return strings.Compare(a.Object, b.Object)
	})
	return steps, nil
}

// object is something that a marker lists, by its name among topology.Broker.Names.
type object struct{ name, marker string }

// parts returns the words of the name: the kind, and one name or the three of a binding.
func (o object) parts() []string { return strings.Split(o.name, " ") }

// title is the name as a finding has it.
func (o object) title() string {
	if p := o.parts(); len(p) == 4 {
		return bindingTitle(p[1], p[2], p[3])
	}
	return o.name
}

// obsolete returns what other versions of t have declared, t does not declare and the broker has,
// in the order in which it can be removed: a dead-letter queue, which may still be filled, after
// the queue that fills it, a binding after its queue, which may have to stay bound, then exchanges,
// and a marker when all that it lists is gone. What a marker of another topology lists is also that
// topology's, and stays.
func (l listing) obsolete(t topology.Topology) (found []object) {
	keep := map[string]bool{}
	var old []object
	for _, e := range l.Exchanges {
		declares := declaresOf(e.Arguments)
		switch {
		case e.Name == t.Marker():
		case t.IsMarker(e.Name):
			for _, name := range declares {
				old = append(old, object{name, e.Name})
			}
			old = append(old, object{"exchange " + e.Name, e.Name})
		default:
			for _, name := range declares {
				keep[name] = true
			}
		}
	}
	for _, name := range t.Broker().Names() {
		keep[name] = true
	}
	exists := l.names()
	for _, o := range old {
		if exists[o.name] && !keep[o.name] {
			found = append(found, o)
			keep[o.name] = true // once is enough
		}
	}
	rank := func(o object) int {
		switch p := o.parts(); {
		case p[0] == "queue" && strings.HasSuffix(o.name, topology.DeadQueueOf("")):
			return 1
		case p[0] == "queue":
			return 0
		case p[0] == "binding":
			return 2
		case p[1] != o.marker:
			return 3
		}
		return 4
	}
	slices.SortStableFunc(found, func(a, b object) int { return rank(a) - rank(b) })
	return found
}

// declaresOf returns the list of a marker. Only names that topology.Broker.Names can have made
// count.
func declaresOf(arguments map[string]any) (names []string) {
	list, _ := arguments[topology.DeclaresArg].([]any)
	for _, item := range list {
		name, _ := item.(string)
		kind, _, _ := strings.Cut(name, " ")
		words := map[string]int{"exchange": 2, "queue": 2, "binding": 4}[kind]
		if words > 0 && len(strings.Split(name, " ")) == words {
			names = append(names, name)
		}
	}
	return names
}

// names returns all that the virtual host has, as topology.Broker.Names does.
func (l listing) names() map[string]bool {
	var b topology.Broker
	for _, e := range l.Exchanges {
		b.Exchanges = append(b.Exchanges, topology.Exchange{Name: e.Name})
	}
	for _, q := range l.Queues {
		b.Queues = append(b.Queues, topology.Queue{Name: q.Name})
	}
	for _, bind := range l.Bindings {
		if bind.Kind == "queue" {
			b.Bindings = append(b.Bindings,
				topology.Binding{Exchange: bind.Source, Key: bind.Key, Queue: bind.Destination})
		}
	}
	all := map[string]bool{}
	for _, name := range b.Names() {
		all[name] = true
	}
	return all
}
