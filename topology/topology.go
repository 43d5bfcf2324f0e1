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

// Service is one service: what sets it going from outside, and what it does about others' events.
type Service struct {
	Name     string     `json:"name"`
	Commands []Command  `json:"commands,omitempty"`
	Reacts   []Reaction `json:"reacts,omitempty"`
}

// Command is what a service does without having heard an event: for a person, or at a deadline.
type Command struct {
	Does string `json:"does"`
	// Type is the event type of the payload that carries the command. A deadline needs one, since a
	// reaction sets it by its payload.
	Type      string   `json:"type,omitempty"`
	Publishes []string `json:"publishes,omitempty"`
	// a deadline: by when, unless configured otherwise
	After  time.Duration `json:"after,omitempty"`
	Undoes string        `json:"undoes,omitempty"` // what of the same service it takes back
}

// Reaction is what a service does about one type of event.
type Reaction struct {
	Handles   string   `json:"handles"`
	Does      string   `json:"does"`
	Publishes []string `json:"publishes,omitempty"`
	Undoes    string   `json:"undoes,omitempty"` // what of the same service it takes back
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
		types = append(types, c.Publishes...)
	}
	for _, r := range s.Reacts {
		types = append(types, r.Publishes...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// Handles returns the event types that s reacts to, sorted.
func (s Service) Handles() []string {
	types := make([]string, 0, len(s.Reacts))
	for _, r := range s.Reacts {
		types = append(types, r.Handles)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// MayPublish tells whether s declares that it publishes said because of cause: an event type that
// it reacts to, or the type of one of its commands. Any other cause is a command that the topology
// does not name by its type; such a command may publish what the commands without a type declare.
func (s Service) MayPublish(cause, published string) bool {
	for _, r := range s.Reacts {
		if r.Handles == cause {
			return slices.Contains(r.Publishes, published)
		}
	}
	if c, ok := s.Command(cause); ok {
		return slices.Contains(c.Publishes, published)
	}
	return slices.ContainsFunc(s.Commands, func(c Command) bool {
		return c.Type == "" &&
			slices.Contains(c.Publishes, published)
	})
}

// MayPublishFirst tells whether s declares a command, of any type, that publishes said: whether it
// may publish said although no event has caused it.
func (s Service) MayPublishFirst(published string) bool {
	return slices.ContainsFunc(s.Commands,
		func(c Command) bool { return slices.Contains(c.Publishes, published) })
}

// Command returns the command whose payload has this event type.
func (s Service) Command(eventType string) (Command, bool) {
	i := slices.IndexFunc(s.Commands, func(c Command) bool {
		return c.Type != "" &&
			c.Type == eventType
	})
	if i < 0 {
		return Command{}, false
	}
	return s.Commands[i], true
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
		if slices.Contains(s.Handles(), eventType) {
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
// of what nobody does, a deadline that no payload can set.
func (t Topology) Validate() error {
	var errs []error
	if !namePattern.MatchString(t.Name) {
		errs = append(errs, fmt.Errorf("topology name %q does not match %s", t.Name, namePattern))
	}
	publisher := map[string]string{}
	seen := map[string]bool{}
	for _, s := range t.Services {
		if !namePattern.MatchString(s.Name) || seen[s.Name] {
			errs = append(errs, fmt.Errorf("service name %q is not unique or does not match %s", s.Name,
				namePattern))
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
			errs = append(errs, fmt.Errorf("%s: %s undoes %q, which %s does not do", s.Name, by, what,
				s.Name))
		}
	}
	carried := map[string]string{}
	for _, c := range s.Commands {
		undone(c.Does, c.Undoes)
		if other, twice := carried[c.Type]; twice && c.Type != "" {
			errs = append(errs, fmt.Errorf("%s: %s and %s have the same type %q", s.Name, other, c.Does,
				c.Type))
		}
		carried[c.Type] = c.Does
		errs = append(errs, s.validateType(c, publisher)...)
	}
	handled := map[string]bool{}
	for _, r := range s.Reacts {
		undone(r.Does, r.Undoes)
		if _, ok := publisher[r.Handles]; !ok {
			errs = append(errs, fmt.Errorf("%s hears %q, which nobody says", s.Name, r.Handles))
		}
		if handled[r.Handles] {
			errs = append(errs, fmt.Errorf("%s reacts to %s twice: make it one reaction", s.Name, r.Handles))
		}
		handled[r.Handles] = true
	}
	return errs
}

// validateType returns the faults of a command's type.
func (s Service) validateType(c Command, publisher map[string]string) (errs []error) {
	switch {
	case c.After < 0:
		errs = append(errs, fmt.Errorf("%s: the deadline of %s is %s after now: it must not be negative",
			s.Name, c.Does, c.After))
	case c.After > 0 && c.Type == "":
		errs = append(errs, fmt.Errorf("%s: %s is a deadline without a type: nothing can set it", s.Name,
			c.Does))
	}
	if c.Type == "" {
		return errs
	}
	if !typePattern.MatchString(c.Type) || len(c.Type) > maxRoutingKey {
		errs = append(errs, fmt.Errorf("%s: %s has the type %q, which is no event type", s.Name, c.Does,
			c.Type))
	}
	if other, ok := publisher[c.Type]; ok {
		errs = append(errs, fmt.Errorf("%s: %s has the type %s, which is an event that %s says: a "+
			"command needs a type of its own", s.Name, c.Does, c.Type, other))
	}
	return errs
}
