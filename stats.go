package quadrille

import (
	"errors"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/outbox"
)

// Stats are the counters of a service since it was started, and the states of its breakers.
type Stats struct {
	Relay    outbox.Stats
	Consumer consumer.Stats
	// SessionEnds counts the consumer's sessions with the broker that ended, or did not begin, by
	// their cause: network, topology, bytes, closed, …
	SessionEnds map[string]int64
	Breakers    []admin.Breaker // of this replica
}

// Stats may be called at any time; before the service is open all counters are 0.
func (s *Service) Stats() Stats {
	stats := Stats{Breakers: s.config.breakers()}
	if p := s.opened.Load(); p != nil {
		stats.Relay, stats.Consumer = p.relay.Stats(), consumer.Stats(p.consumer.Stats())
		stats.SessionEnds = p.consumer.SessionEnds()
	}
	return stats
}

// Connected reports whether the service has a session with the broker in which it may publish and
// consume, that is, whether its topology was found there.
func (s *Service) Connected() bool { return s.sessions.Load() > 0 }

// ready delays publishing and consuming until every queue is bound, and counts the session.
func (s *Service) ready(session *rabbit.Session) error {
	if err := s.role.ready(session); err != nil {
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
