package lint_test

import (
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/lint"
	"github.com/quadrille-go/quadrille/topology"
)

type (
	command  = topology.Command
	reaction = topology.Reaction
	service  = topology.Service
	call     = topology.Call
)

func types(names ...string) []string { return names }

// base is a topology in which no rule finds anything: a places, b decides, and a may give up.
func base() topology.Topology {
	return topology.Topology{Name: "test", Services: []service{{
		Name: "a",
		Commands: []command{{Does: "begin", Type: "a.begin", Publishes: types("a.begun")},
			{Does: "give up", Type: "a.give_up", Publishes: types("a.dropped"), Undoes: "begin",
				After: time.Hour}},
		Reacts: []reaction{{Handles: "b.kept", Does: "finish"},
			{Handles: "b.refused", Does: "drop", Publishes: types("a.dropped"), Undoes: "begin"}},
	}, {
		Name: "b",
		Reacts: []reaction{{Handles: "a.begun", Does: "keep", Requests: types("b.ask")},
			{Handles: "a.dropped", Does: "let go", Undoes: "keep", Requests: types("b.cancel")}},
		Commands: []command{{Does: "note the yes", Type: "b.yes", Publishes: types("b.kept")},
			{Does: "note the no", Type: "b.no", Publishes: types("b.refused")},
			{Does: "note the end", Type: "b.ended"}, {Does: "leave it to a person", Type: "b.stuck"}},
		Calls: []call{{Type: "b.ask", Does: "ask", Answers: types("b.yes", "b.no")},
			{Type: "b.cancel", Does: "cancel", Undoes: "ask", Answers: types("b.ended", "b.stuck")}},
	}}}
}

// change is base with one change, and the objects that a rule must then find.
type change struct {
	to   func(a, b *service)
	want []string
}

func also(to *[]string, name string) { *to = append(*to, name) }

// changes has a change for each rule.
func changes() map[string]change {
	return map[string]change{
		"event-unhandled": {func(a, _ *service) { also(&a.Commands[0].Publishes, "a.noted") },
			types("a.noted")},
		"refusal-unhandled": {func(a, _ *service) { a.Reacts = a.Reacts[:1] }, types("b.refused")},
		"event-cycle": {func(a, b *service) {
			also(&a.Reacts[0].Publishes, "a.begun")
		}, types("a.begun", "b.kept")},
		"event-name": {func(a, b *service) {
			also(&a.Commands[0].Publishes, "a.start")
			also(&a.Commands[0].Publishes, "begun")
		}, types("a.start", "begun")},
		"noun-shared": {func(_, b *service) { also(&b.Commands[0].Publishes, "a.seen") },
			types("a")},
		"event-unreachable": {func(_, b *service) { b.Reacts[0].Requests = nil },
			types("b.kept", "b.refused")},
		"undo-missing": {func(a, _ *service) {
			a.Commands[1].Undoes, a.Reacts[1].Undoes = "", ""
			a.Reacts[0].Undoes = "give up"
		}, types("a: begin", "b: note the no")},
		"undo-unreachable": {func(a, b *service) {
			b.Reacts = append(b.Reacts, reaction{Handles: "a.dreamt", Does: "dream"})
			a.Commands = append(a.Commands, command{Does: "wake", Type: "a.wake"})
			a.Calls = []call{{Type: "a.sleep", Does: "sleep", Answers: types("a.wake")}}
			a.Commands[2].Publishes = types("a.dreamt")
			b.Reacts[1].Undoes = "dream"
		}, types("b: let go")},
		"undo-circular": {func(a, _ *service) { a.Commands[0].Undoes = "drop" },
			types("a: begin", "a: drop")},
		"step-unreachable": {func(_, b *service) { b.Reacts[1].Requests = nil },
			types("b: leave it to a person", "b: note the end")},
		"step-ambiguous":   {func(a, _ *service) { a.Reacts[0].Does = "drop" }, types("a: drop")},
		"deadline-missing": {func(a, _ *service) { a.Commands[1].After = 0 }, types("a")},
		"deadline-silent": {func(a, _ *service) {
			a.Commands = append(a.Commands, command{Does: "sigh", Type: "a.sigh", After: 1})
		}, types("a: sigh")},
		"command-name": {func(a, b *service) {
			a.Commands[0].Type, b.Calls[1].Type = "begin", "x.cancel"
			b.Reacts[1].Requests = types("x.cancel")
		}, types("a: begin", "b: cancel")},
		"service-idle": {func(a, b *service) {
			a.Reacts, *b = nil, service{Name: "b"}
		}, types("b")},
		"service-own-event": {func(a, _ *service) { a.Reacts[0].Handles = "a.begun" },
			types("a: finish")},
		"service-coordinator": {func(a, b *service) {
			for _, e := range types("b.made", "b.paid", "b.sent", "b.sold", "b.lost") {
				also(&b.Commands[0].Publishes, e)
				a.Reacts = append(a.Reacts, reaction{Handles: e, Does: "note " + e})
			}
		}, types("a")},
		"topology-divided": {func(a, b *service) {
			a.Reacts, b.Reacts = nil, nil
			also(&b.Commands[2].Publishes, "b.over")
		}, types("test")},
		"call-unrequested": {func(_, b *service) { b.Reacts[1].Requests = nil }, types("b: cancel")},
		"call-unanswered":  {func(_, b *service) { b.Calls[1].Answers = nil }, types("b: cancel")},
		"call-never-refused": {func(_, b *service) { b.Calls[1].Answers = types("b.ended") },
			types("b: cancel")},
		"call-irrevocable": {func(_, b *service) { b.Calls[1].Undoes = "" }, types("b: ask")},
	}
}

// Each rule finds what it is for, and nothing where nothing is wrong. Each is explained.
func TestEachRuleFindsItsFault(t *testing.T) {
	t.Parallel()
	if found, err := lint.Check(base(), nil); err != nil || len(found) > 0 {
		t.Fatalf("in a topology without faults: %+v, %v", found, err)
	}
	all := changes()
	for _, r := range lint.Rules() {
		c, ok := all[r.Name]
		if !ok || r.Finds == "" || r.Why == "" || r.Do == "" {
			t.Errorf("rule %+v is not tested or not explained", r)
			continue
		}
		topo := base()
		c.to(&topo.Services[0], &topo.Services[1])
		found, err := lint.Check(topo, nil)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
		var objects []string
		for _, f := range found {
			if f.Rule == r.Name {
				objects = append(objects, f.Object)
			}
			if f.Found == "" {
				t.Errorf("%+v does not say what was found", f)
			}
		}
		if strings.Join(objects, ", ") != strings.Join(c.want, ", ") {
			t.Errorf("%s finds %q, want %q in %+v", r.Name, objects, c.want, found)
		}
		delete(all, r.Name)
	}
	for name := range all {
		t.Errorf("there is no rule %s", name)
	}
	if n := len(lint.Rules()); n < 12 {
		t.Errorf("%d rules", n)
	}
}

// What is meant so is accepted with its reason, and a reason that is no longer needed is found.
func TestAcceptedFindingsNeedTheirReason(t *testing.T) {
	t.Parallel()
	topo := base()
	also(&topo.Services[0].Commands[0].Publishes, "a.noted")
	found, err := lint.Check(topo, map[string]string{"event-unhandled a.noted": "for reports",
		"event-unhandled a.gone": "for nobody"})
	if err != nil || len(found) != 2 || found[0].Accepted != "for reports" ||
		found[1].Rule != "unused-reason" || found[1].Object != "event-unhandled a.gone" {
		t.Errorf("%+v, %v", found, err)
	}
	topo.Name = "no name"
	if _, err := lint.Check(topo, nil); err == nil {
		t.Error("a topology that is not valid is checked")
	}
}

// The only findings in the demo are its three last events, which are facts for people.
func TestFulfilmentHasNoFindings(t *testing.T) {
	t.Parallel()
	found, err := lint.Check(fulfilment.Topology(), fulfilment.Accepted())
	if err != nil || len(found) != 3 {
		t.Errorf("%d findings: %v", len(found), err)
	}
	for _, f := range found {
		if f.Accepted == "" {
			t.Errorf("%+v", f)
		}
	}
}
