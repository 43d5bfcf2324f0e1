package quadrille

import (
	"errors"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/topology"
)

// choreography returns the topology with this service in it.
func (s *Service) choreography() (topology.Topology, error) {
	t := s.config.Topology
	if _, named := t.Service(s.config.Name); named {
		return t, t.Validate()
	}
	if t.Name == "" {
		t.Name = s.config.Name
	}
	me := topology.Service{Name: s.config.Name}
	var publishes []string
	for _, p := range s.config.Publishes {
		publishes = append(publishes, p.EventType())
	}
	if len(publishes) > 0 {
		me.Commands = []topology.Command{{Does: "publish", Publishes: publishes}}
	}
	for _, h := range s.config.Handlers {
		for _, eventType := range h.Types() {
			me.Reacts = append(me.Reacts, topology.Reaction{Handles: eventType, Does: "handle " + eventType,
				Publishes: publishes})
		}
	}
	t = t.With(me)
	return t, t.Validate()
}

// mandatory selects the types whose events are held while no queue is bound.
func (s *Service) mandatory() func(eventType string) bool {
	t := s.topology
	if s.config.Mandatory != nil {
		return s.config.Mandatory
	}
	return func(eventType string) bool { return len(t.Subscribers(eventType)) > 0 }
}

// optional returns whether a type may be published without a bound queue: the topology that was
// applied has no subscriber of it.
func (s *Service) optional() func(eventType string) bool {
	t := s.topology
	_, joined := s.config.Topology.Service(s.config.Name)
	return func(eventType string) bool { return joined && len(t.Subscribers(eventType)) == 0 }
}

// ready delays publishing and consuming until every queue is bound.
func (s *Service) ready(session *rabbit.Session) error {
	t := s.topology
	check := func() error { return session.DeclarePart(t, s.config.Name) }
	if _, named := s.config.Topology.Service(s.config.Name); named {
		check = func() error { return session.CheckApplied(t) }
	}
	if err := check(); err != nil {
		return err
	}
	s.sessions.Add(1)
	go func() { // ends with the session
		<-session.Done()
		s.sessions.Add(-1)
	}()
	return nil
}

// Healthy returns nil when the service consumes, or an error that says why it does not: the
// database or the broker is away, the topology is not applied, its sessions with the broker end
// soon, or handlers hang. Ready checks only what HTTP needs.
func (s *Service) Healthy() error {
	p := s.opened.Load()
	switch {
	case p == nil:
		return errors.New("the database has not been opened yet")
	case !s.Connected():
		return errors.Join(errors.New("no session with the broker, or the topology is not applied"),
			p.consumer.Healthy())
	}
	return p.consumer.Healthy()
}

// SessionEnds counts the consumer's sessions with the broker that ended, or did not begin, by their
// cause; see rabbit.CauseOf.
func (s *Service) SessionEnds() map[string]int64 {
	if p := s.opened.Load(); p != nil {
		return p.consumer.SessionEnds()
	}
	return nil
}

// Stats are the counters of a service since it was started.
type Stats struct {
	Relay    outbox.Stats
	Consumer consumer.Stats
}

// Stats may be called at any time; before the service is open all counters are 0.
func (s *Service) Stats() Stats {
	p := s.opened.Load()
	if p == nil {
		return Stats{}
	}
	return Stats{Relay: p.relay.Stats(), Consumer: consumer.Stats(p.consumer.Stats())}
}

// Connected reports whether the service has a session with the broker in which it may publish and
// consume, that is, whether its topology was found there.
func (s *Service) Connected() bool { return s.sessions.Load() > 0 }
