package quadrille

import (
	"context"
	"errors"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/internal/backlog"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tally"
	"github.com/quadrille-go/quadrille/outbox"
)

// Stats are the counters of a service since it was started, and the states of its breakers.
type Stats struct {
	Relay    outbox.Stats
	Consumer consumer.Stats
	// SessionEnds counts the consumer's sessions with the broker that ended, or did not begin, by
	// their cause: network, topology, bytes, closed, …
	SessionEnds map[string]int64
	// RelaySessionEnds are the same of the relay.
	RelaySessionEnds map[string]int64
	Breakers         []admin.Breaker // of this replica
	// Events counts events by their type and by what became of them: handled, duplicate, delayed (it
	// failed and will be tried again) or parked. Calls counts outside calls: answered, failed,
	// permanent (given up) or not_made (a breaker or a limit was in the way). Types that the service
	// does not handle are counted together, under "other".
	Events, Calls map[tally.Key]int64
	// Handling is the time from a delivery until its transaction has ended, and Lag that from the
	// origin of an event, by its own time, until the event was handled.
	Handling, Lag tally.Distribution
}

// Stats may be called at any time; before the service is open all counters are 0.
func (s *Service) Stats() Stats {
	stats := Stats{Breakers: s.config.breakers(), RelaySessionEnds: s.relayed.Counts()}
	if p := s.opened.Load(); p != nil {
		stats.Relay, stats.Consumer = p.relay.Stats(), consumer.Stats(p.consumer.Stats())
		stats.SessionEnds = p.consumer.SessionEnds()
		m := p.consumer.Measures()
		stats.Events, stats.Calls, stats.Handling, stats.Lag = m.Events, m.Calls, m.Handling, m.Lag
	}
	return stats
}

// Backlog is what waits in the database of a service. Each number is counted up to 10,000 only, and
// each map is by a kind.
type Backlog struct {
	Unpublished    int64         // events in the outbox that the relay has not reached
	UnpublishedAge time.Duration // since the transaction of the oldest one began
	Held           map[string]int64
	Parked         map[string]int64
	ParkedAge      time.Duration // since the oldest one was received
	// Retries, deadlines, calls and events for another release: all that wait for a time, those whose
	// time has come, and those for whom it came more than a minute ago.
	Pending, Due, Overdue map[string]int64
	DueAge                time.Duration // how late the latest of them is
}

// Backlog reads what waits. It costs some milliseconds, however much that is. It fails until the
// service is open; it does not open it.
func (s *Service) Backlog(ctx context.Context) (Backlog, error) {
	p := s.opened.Load()
	if p == nil {
		return Backlog{}, errNotOpen
	}
	b, err := backlog.Read(ctx, p.db, s.config.Name)
	return Backlog(b), err
}

var errNotOpen = errors.New("the database has not been opened yet")

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
		return errNotOpen
	case !s.Connected():
		return errors.Join(errors.New("no session with the broker, or the topology is not applied"),
			p.consumer.Healthy())
	}
	return p.consumer.Healthy()
}
