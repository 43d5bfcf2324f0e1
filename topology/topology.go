// Package topology is the choreography as data: which service publishes what, which reacts to it
// and how, what undoes what, and by when. Exchanges, queues, bindings and permissions follow from
// it.
//
// It promises that a topology which passes Validate is closed: every event that a service handles
// has exactly one publisher. It does no I/O: quadrille.ApplyTopology declares what is described
// here.
package topology

import (
	"regexp"
	"slices"
	"time"
)

// Topology is a whole choreography. It is a value: With returns another one.
type Topology struct {
	Name string `json:"name"`
	// Schema is the prefix of the dataschema of its events, "urn:shop:" for example. Consumers find
	// the major version under any prefix, so the prefix may change. Default: urn:<name>:
	Schema   string    `json:"schema,omitempty"`
	Services []Service `json:"services"`
}

// Service is what one service does: about commands, about events, and to the outside.
type Service struct {
	Name     string     `json:"name"`
	Commands []Command  `json:"commands,omitempty"`
	Reacts   []Reaction `json:"reacts,omitempty"`
	Calls    []Call     `json:"calls,omitempty"`
}

// Command is what a service does that no event has caused: for a person, at a deadline, or because
// an outside call was answered.
type Command struct {
	Does string `json:"does"`
	// Type is the event type of the payload that carries the command. A deadline and an answer need
	// one, since they travel as payloads.
	Type      string   `json:"type,omitempty"`
	Publishes []string `json:"publishes,omitempty"`
	Requests  []string `json:"requests,omitempty"` // types of Calls
	// a deadline: by when, unless configured otherwise
	After  time.Duration `json:"after,omitempty"`
	Undoes string        `json:"undoes,omitempty"` // what of the same service it takes back
}

// Reaction is what a service does about one type of event.
type Reaction struct {
	Handles   string   `json:"handles"`
	Does      string   `json:"does"`
	Publishes []string `json:"publishes,omitempty"`
	Requests  []string `json:"requests,omitempty"` // types of Calls
	Undoes    string   `json:"undoes,omitempty"`   // what of the same service it takes back
}

// Call is a request of a service to the outside, such as a payment provider. A reaction or a
// command requests it; no other service sees it.
type Call struct {
	Type    string   `json:"type"` // of the payload that carries the request
	Does    string   `json:"does"`
	Answers []string `json:"answers,omitempty"` // types of the commands that an answer is delivered as
	Undoes  string   `json:"undoes,omitempty"`  // what of the same service it takes back
}

var (
	namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	urnPattern  = regexp.MustCompile(`^urn:[a-z0-9][a-z0-9-]*:([a-z0-9._-]+:)*$`)
	typePattern = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
)

// With returns the topology with one more service.
func (t Topology) With(s Service) Topology {
	t.Services = append(slices.Clone(t.Services), s)
	return t
}

// SchemaPrefix returns Schema, or its default.
func (t Topology) SchemaPrefix() string {
	if t.Schema == "" {
		return "urn:" + t.Name + ":"
	}
	return t.Schema
}

// Service returns the service of that name.
func (t Topology) Service(name string) (Service, bool) {
	i := slices.IndexFunc(t.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return t.Services[i], true
}

// Publishes returns the event types that s publishes, sorted.
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

// MayPublish reports whether s declares that it publishes an event type because of cause: an event
// type that it reacts to, or the type of one of its commands. Any other cause is a command that the
// topology does not name by its type; such a command may publish what the commands without a type
// declare.
func (s Service) MayPublish(cause, eventType string) bool {
	return s.may(cause, eventType, func(c Command) []string { return c.Publishes },
		func(r Reaction) []string { return r.Publishes })
}

// MayRequest is MayPublish for the type of a call.
func (s Service) MayRequest(cause, callType string) bool {
	return s.may(cause, callType, func(c Command) []string { return c.Requests },
		func(r Reaction) []string { return r.Requests })
}

func (s Service) may(cause, what string, ofCommand func(Command) []string,
	ofReaction func(Reaction) []string) bool {
	for _, r := range s.Reacts {
		if r.Handles == cause {
			return slices.Contains(ofReaction(r), what)
		}
	}
	if c, ok := s.Command(cause); ok {
		return slices.Contains(ofCommand(c), what)
	}
	return slices.ContainsFunc(s.Commands, func(c Command) bool {
		return c.Type == "" && slices.Contains(ofCommand(c), what)
	})
}

// MayPublishFirst reports whether s declares a command, of any type, that publishes an event type:
// whether it may publish it although no event has caused it.
func (s Service) MayPublishFirst(eventType string) bool {
	return slices.ContainsFunc(s.Commands, func(c Command) bool {
		return slices.Contains(c.Publishes, eventType)
	})
}

// Call returns the outside call whose request has this type.
func (s Service) Call(callType string) (Call, bool) {
	i := slices.IndexFunc(s.Calls, func(c Call) bool { return c.Type == callType })
	if i < 0 {
		return Call{}, false
	}
	return s.Calls[i], true
}

// MayAnswer reports whether s declares that a call is answered by a command of this type. A call
// that is no Call of s, such as one whose request is an event, declares nothing.
func (s Service) MayAnswer(callType, answerType string) bool {
	c, ok := s.Call(callType)
	return !ok || slices.Contains(c.Answers, answerType)
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

// Publisher returns the service that publishes a type.
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

// Types returns every event type that is published, sorted.
func (t Topology) Types() []string {
	var types []string
	for _, s := range t.Services {
		types = append(types, s.Publishes()...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}
