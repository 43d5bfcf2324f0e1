package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/topology"
)

// A service is a coordinator in disguise if it handles more than this share of at least this many
// events of others.
const (
	coordinatorShare = 2.0 / 3
	coordinatorLeast = 6
)

func serviceRules() []Rule {
	return []Rule{
		{"service-idle", "a service that publishes nothing and handles nothing",
			"It has an exchange, a user and a process, and takes part in nothing.",
			"Remove it, or declare what it does.", idle},
		{"service-own-event", "a service that handles an event that it publishes itself",
			"The detour through the broker is slower than the transaction in which the event was " +
				"published, and between the two the service disagrees with itself.",
			"Do both in one transaction, or use a command or a deadline of the service. Accept it if " +
				"the work is meant to be spread over replicas.", ownEvent},
		{"service-coordinator", "a service that handles more than two thirds of the events of others",
			"A service that must know every step is a coordinator that nobody has called so: every " +
				"change of the flow changes it, too.",
			"Let the services react to each other, or use an orchestrator on purpose.", coordinator},
		{"topology-divided", "services that share no event with the others",
			"Each change of one part has a new marker for all, and all services of both must wait for it.",
			"Make it a topology of its own.", divided},
	}
}

func idle(g graph) (found []Finding) {
	for _, s := range g.Services {
		if len(s.Publishes())+len(s.Handles()) == 0 {
			found = append(found, Finding{Object: s.Name, Found: "it publishes and handles nothing"})
		}
	}
	return found
}

func ownEvent(g graph) (found []Finding) {
	for _, s := range g.Services {
		for _, r := range s.Reacts {
			if owner, _ := g.Publisher(r.Handles); owner == s.Name {
				found = append(found, Finding{Object: s.Name + ": " + r.Does,
					Found: "it handles " + r.Handles + ", which the same service publishes"})
			}
		}
	}
	return found
}

func coordinator(g graph) (found []Finding) {
	for _, s := range g.Services {
		others, handled := 0, 0
		for _, e := range g.Types() {
			if owner, _ := g.Publisher(e); owner == s.Name {
				continue
			}
			others++
			if slices.Contains(s.Handles(), e) {
				handled++
			}
		}
		if others >= coordinatorLeast && float64(handled) > coordinatorShare*float64(others) {
			found = append(found, Finding{Object: s.Name,
				Found: fmt.Sprintf("it handles %d of the %d events of others", handled, others)})
		}
	}
	return found
}

// divided finds the services that the first service is not connected to by events, in either
// direction. A service that is idle has a rule of its own.
func divided(g graph) (found []Finding) {
	busy := slices.DeleteFunc(slices.Clone(g.Services), func(s topology.Service) bool {
		return len(s.Publishes())+len(s.Handles()) == 0
	})
	if len(busy) == 0 {
		return nil
	}
	connected := map[string]bool{busy[0].Name: true}
	for grown := true; grown; {
		grown = false
		for _, s := range busy {
			for _, handled := range s.Handles() {
				owner, _ := g.Publisher(handled)
				if connected[owner] != connected[s.Name] {
					connected[owner], connected[s.Name], grown = true, true, true
				}
			}
		}
	}
	var apart []string
	for _, s := range busy {
		if !connected[s.Name] {
			apart = append(apart, s.Name)
		}
	}
	if len(apart) == 0 {
		return nil
	}
	return []Finding{{Object: g.Name, Found: strings.Join(apart, ", ") + " share no event with " +
		busy[0].Name}}
}
