package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// refusal finds the last word of an event that says that something was not done.
var refusal = regexp.MustCompile(
	`(^|[._-])(declined|rejected|refused|failed|denied|aborted|expired|cancelled|canceled)$`)

// past finds the last word of an event if it is a verb in the past: regular, or one of the
// irregular ones that events are named with.
var past = regexp.MustCompile(`(^|[._-])([a-z]+ed|begun|bought|bound|built|chosen|cut|done|drawn|` +
	`found|frozen|given|gone|grown|held|kept|known|laid|led|left|lent|lost|made|met|paid|put|read|` +
	`risen|run|rung|seen|sent|set|shown|shut|sold|split|spent|sung|taken|thrown|told|undone|` +
	`unpaid|unset|withdrawn|won|written)$`)

func eventRules() []Rule {
	return []Rule{
		{"event-unhandled", "an event that no service handles",
			"The work of publishing it has no effect in this topology: a subscriber is missing, or the " +
				"event is superfluous.",
			"Add the reaction, or remove the event. Accept it if it is a fact for people, reports or " +
				"systems outside of the topology.", unhandled},
		{"refusal-unhandled", "an event that is named like a refusal and that no service handles",
			"Somebody has done the earlier steps of the flow and waits. If nobody reacts to the refusal, " +
				"they stay done although the flow has failed.",
			"React to it in each service whose step came before, and undo that step.", refusalUnhandled},
		{"event-cycle", "an event that leads to itself through reactions alone",
			"Such events publish each other without an end and fill the queues, unless every reaction of " +
				"the cycle stops at some point by its state.",
			"Break the cycle with a command, or publish another event the second time.", cycle},
		{"event-name", "an event that is not named noun.verb, with the verb in the past",
			"An event is a fact that has happened. A name in the imperative reads as a command to a " +
				"certain service, and couples the publisher to it.",
			"Rename it, such as order.placed. The name is the contract: publish both for a while.",
			eventName},
		{"noun-shared", "events about one noun that several services publish",
			"The events of one thing should have one order and one owner. Two owners of it disagree " +
				"sooner or later.",
			"Give the events of one service the noun of what that service owns.", nounShared},
		{"event-unreachable", "an event that nothing can cause",
			"It is published only by reactions to events that themselves are never published, or by the " +
				"answer to a call that nothing requests.",
			"Add the command that begins the flow, or remove the event.", eventUnreachable},
	}
}

func unhandled(g graph) (found []Finding) {
	for _, e := range g.Types() {
		if len(g.Subscribers(e)) == 0 && !g.refuses(e) {
			owner, _ := g.Publisher(e)
			found = append(found, Finding{Object: e, Found: owner + " publishes it, and nobody handles it"})
		}
	}
	return found
}

func refusalUnhandled(g graph) (found []Finding) {
	for _, e := range g.Types() {
		if len(g.Subscribers(e)) == 0 && g.refuses(e) {
			owner, _ := g.Publisher(e)
			found = append(found, Finding{Object: e,
				Found: owner + " refuses with it, and nobody handles it"})
		}
	}
	return found
}

// refuses reports whether an event is named like a refusal. What an undoing step publishes is none:
// a cancelled shipment is the end of its flow.
func (g graph) refuses(event string) bool {
	return refusal.MatchString(lastPart(event)) &&
		!slices.ContainsFunc(g.publishers(event), func(s step) bool { return s.undoes != "" })
}

func lastPart(event string) string { return event[strings.LastIndex(event, ".")+1:] }

func cycle(g graph) (found []Finding) {
	for _, e := range g.Types() {
		if g.after(e)[e] {
			found = append(found, Finding{Object: e, Found: "it leads to itself through " +
				strings.Join(g.path(e), " → ")})
		}
	}
	return found
}

// path returns a shortest way from an event that leads to itself back to it.
func (g graph) path(event string) []string {
	from, queue := map[string]string{}, []string{event}
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		for _, n := range g.next(e) {
			if _, seen := from[n]; seen {
				continue
			}
			from[n] = e
			queue = append(queue, n)
		}
	}
	way := []string{event}
	for e := from[event]; e != event; e = from[e] {
		way = append(way, e)
	}
	way = append(way, event)
	slices.Reverse(way)
	return way
}

func eventName(g graph) (found []Finding) {
	for _, e := range g.Types() {
		switch {
		case !strings.Contains(e, "."):
			found = append(found, Finding{Object: e, Found: "it has no noun before a dot"})
		case !past.MatchString(lastPart(e)):
			found = append(found, Finding{Object: e,
				Found: fmt.Sprintf("%q does not end with a verb in the past", lastPart(e))})
		}
	}
	return found
}

func nounShared(g graph) (found []Finding) {
	owners := map[string][]string{}
	var nouns []string
	for _, e := range g.Types() {
		noun, _, ok := strings.Cut(e, ".")
		owner, _ := g.Publisher(e)
		if !ok || slices.Contains(owners[noun], owner) {
			continue
		}
		if owners[noun] == nil {
			nouns = append(nouns, noun)
		}
		owners[noun] = append(owners[noun], owner)
	}
	for _, noun := range nouns {
		if len(owners[noun]) > 1 {
			found = append(found, Finding{Object: noun, Found: strings.Join(owners[noun], " and ") +
				" publish events about it"})
		}
	}
	return found
}

func eventUnreachable(g graph) (found []Finding) {
	for _, e := range g.Types() {
		if !g.live[e] {
			found = append(found, Finding{Object: e, Found: "no command leads to it"})
		}
	}
	return found
}
