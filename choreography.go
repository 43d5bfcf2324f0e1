package quadrille

import (
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// role is what a service does in its topology.
type role struct {
	name     string
	topology topology.Topology // with this service in it
	joined   bool              // the topology names the service, and an operator applies it
	selected func(eventType string) bool
}

// roleOf returns the role of a configured service, and the faults of its topology.
func roleOf(c Config) (role, error) {
	t := c.Topology
	r := role{name: c.Name, topology: t, selected: c.Mandatory}
	if _, r.joined = t.Service(c.Name); r.joined {
		return r, t.Validate()
	}
	if t.Name == "" {
		t.Name = c.Name
	}
	me := topology.Service{Name: c.Name}
	var publishes []string
	for _, p := range c.Publishes {
		publishes = append(publishes, p.EventType())
	}
	if len(publishes) > 0 {
		me.Commands = []topology.Command{{Does: "publish", Publishes: publishes}}
	}
	for _, h := range c.Handlers {
		for _, eventType := range h.Types() {
			me.Reacts = append(me.Reacts, topology.Reaction{Handles: eventType, Does: "handle " + eventType,
				Publishes: publishes})
		}
	}
	r.topology = t.With(me)
	return r, r.topology.Validate()
}

// mandatory reports whether events of a type are held while no queue is bound.
func (r role) mandatory(eventType string) bool {
	if r.selected != nil {
		return r.selected(eventType)
	}
	return len(r.topology.Subscribers(eventType)) > 0
}

// optional reports whether a type may be published without a bound queue: the topology that was
// applied has no subscriber of it.
func (r role) optional(eventType string) bool {
	return r.joined && len(r.topology.Subscribers(eventType)) == 0
}

// ready returns nil when every queue is bound. It declares those of a service that declares its own
// part.
func (r role) ready(session *rabbit.Session) error {
	if r.joined {
		return session.CheckApplied(r.topology)
	}
	return session.DeclarePart(r.topology, r.name)
}
