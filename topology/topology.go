// Package topology is the choreography as data: who publishes what, who reacts to it and how, what
// undoes what, and by when. Exchanges, queues, bindings and permissions follow from it.
//
// It promises that a topology which passes Validate is closed: every event that somebody hears has
// exactly one publisher. It does no I/O: package rabbit declares what is described here.
package topology

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Topology is a whole choreography. It is a value: With returns another one.
type Topology struct {
	Name     string    `json:"name"`
	Services []Service `json:"services"`
}

// Service is one dancer: what sets it going from outside, and what it does about others' events.
type Service struct {
	Name     string     `json:"name"`
	Commands []Command  `json:"commands,omitempty"`
	Reacts   []Reaction `json:"reacts,omitempty"`
}

// Command is what a service does without having heard an event: for a person, or at a deadline.
type Command struct {
	Does   string        `json:"does"`
	Says   []string      `json:"says,omitempty"`
	After  time.Duration `json:"after,omitempty"`  // a deadline: by when, unless configured otherwise
	Undoes string        `json:"undoes,omitempty"` // what of the same service it takes back
}

// Reaction is what a service does about one type of event.
type Reaction struct {
	Hears  string   `json:"hears"`
	Does   string   `json:"does"`
	Says   []string `json:"says,omitempty"`
	Undoes string   `json:"undoes,omitempty"` // what of the same service it takes back
}

var (
	namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	typePattern = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
)

// With returns the topology with one more service.
func (t Topology) With(s Service) Topology {
	t.Services = append(slices.Clone(t.Services), s)
	return t
}

// Service returns the service of that name.
func (t Topology) Service(name string) (Service, bool) {
	i := slices.IndexFunc(t.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return t.Services[i], true
}

// Publishes returns the event types that s says, sorted.
func (s Service) Publishes() []string {
	var types []string
	for _, c := range s.Commands {
		types = append(types, c.Says...)
	}
	for _, r := range s.Reacts {
		types = append(types, r.Says...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// Hears returns the event types that s reacts to, sorted.
func (s Service) Hears() []string {
	types := make([]string, 0, len(s.Reacts))
	for _, r := range s.Reacts {
		types = append(types, r.Hears)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// MaySay tells whether s declares that hearing heard may make it say said.
func (s Service) MaySay(heard, said string) bool {
	return slices.ContainsFunc(s.Reacts, func(r Reaction) bool { return r.Hears == heard && slices.Contains(r.Says, said) })
}

// Publisher returns the service that says a type.
func (t Topology) Publisher(eventType string) (string, bool) {
	for _, s := range t.Services {
		if slices.Contains(s.Publishes(), eventType) {
			return s.Name, true
		}
	}
	return "", false
}

// Subscribers returns the services that react to a type, in the order of the topology.
func (t Topology) Subscribers(eventType string) []string {
	var names []string
	for _, s := range t.Services {
		if slices.Contains(s.Hears(), eventType) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Types returns every event type that is said, sorted.
func (t Topology) Types() []string {
	var types []string
	for _, s := range t.Services {
		types = append(types, s.Publishes()...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// Validate joins all faults: names that do not fit, a type with no publisher or with two, an undo
// of what nobody does.
func (t Topology) Validate() error {
	var errs []error
	if !namePattern.MatchString(t.Name) {
		errs = append(errs, fmt.Errorf("topology name %q does not match %s", t.Name, namePattern))
	}
	publisher := map[string]string{}
	seen := map[string]bool{}
	for _, s := range t.Services {
		if !namePattern.MatchString(s.Name) || seen[s.Name] {
			errs = append(errs, fmt.Errorf("service name %q is not unique or does not match %s", s.Name, namePattern))
		}
		seen[s.Name] = true
		for _, eventType := range s.Publishes() {
			if !typePattern.MatchString(eventType) || len(eventType) > maxRoutingKey {
				errs = append(errs, fmt.Errorf("%s says %q, which is no event type", s.Name, eventType))
			}
			if other, ok := publisher[eventType]; ok {
				errs = append(errs, fmt.Errorf("%s is said by %s and by %s", eventType, other, s.Name))
			}
			publisher[eventType] = s.Name
		}
	}
	for _, s := range t.Services {
		errs = append(errs, s.validate(publisher)...)
	}
	return errors.Join(errs...)
}

func (s Service) validate(publisher map[string]string) (errs []error) {
	does := map[string]bool{}
	for _, c := range s.Commands {
		does[c.Does] = true
	}
	for _, r := range s.Reacts {
		does[r.Does] = true
	}
	undone := func(by, what string) {
		if what != "" && !does[what] {
			errs = append(errs, fmt.Errorf("%s: %s undoes %q, which %s does not do", s.Name, by, what, s.Name))
		}
	}
	for _, c := range s.Commands {
		undone(c.Does, c.Undoes)
	}
	heard := map[string]bool{}
	for _, r := range s.Reacts {
		undone(r.Does, r.Undoes)
		if _, ok := publisher[r.Hears]; !ok {
			errs = append(errs, fmt.Errorf("%s hears %q, which nobody says", s.Name, r.Hears))
		}
		if heard[r.Hears] {
			errs = append(errs, fmt.Errorf("%s reacts to %s twice: make it one reaction", s.Name, r.Hears))
		}
		heard[r.Hears] = true
	}
	return errs
}
