package rabbit

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/topology"
)

// ErrNotApplied means that the broker does not have the topology with which a program was built.
var ErrNotApplied = errors.New("the topology is not applied")

// The bounds of the attempts of Apply while the broker has an internal error, as it may have while
// it still removes queues of the same names.
const (
	applyTimeout  = 30 * time.Second
	applyInterval = 200 * time.Millisecond
)

// Apply declares a whole topology and finally its marker. An operator runs it and may repeat it. It
// does not change objects that the topology does not describe.
func Apply(ctx context.Context, rawURL string, t topology.Topology) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("apply topology: %w", err)
	}
	until := time.Now().Add(applyTimeout)
	tick := time.NewTicker(applyInterval)
	defer tick.Stop()
	for {
		err := applyOnce(ctx, rawURL, t)
		if ServerCode(err) != amqp.InternalError || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func applyOnce(ctx context.Context, rawURL string, t topology.Topology) error {
	s, err := Open(ctx, rawURL, t.Name+"/apply")
	if err != nil {
		return fmt.Errorf("apply topology: %w", err)
	}
	defer s.Close()
	if err := s.declare(t.Broker()); err != nil {
		return err
	}
	return s.declareExchange(t.MarkerExchange())
}

// DeclarePart declares the exchange, the queues and the bindings of one service. It is for
// a service that has the right to configure them on a broker where no operator applies a topology.
func (s *Session) DeclarePart(t topology.Topology, service string) error {
	return s.declare(t.Part(service))
}

// CheckApplied returns ErrNotApplied if the marker of t is missing. It needs no right to configure.
// If the marker is missing, the broker closes the channel and the session is over.
func (s *Session) CheckApplied(t topology.Topology) error {
	err := s.call(func() error {
		return s.ch.ExchangeDeclarePassive(t.Marker(), "fanout", durable, autoDelete, internal, noWait,
			nil)
	})
	if ServerCode(err) == amqp.NotFound {
		return fmt.Errorf("%w: exchange %s is missing; "+
			"apply the topology (command: topology apply)", ErrNotApplied,
			t.Marker())
	}
	if err != nil {
		return fmt.Errorf("check for the topology marker %s: %w", t.Marker(), err)
	}
	return nil
}

// The names of the driver's positional parameters.
const (
	durable    = true
	autoDelete = false
	exclusive  = false
	internal   = false
	noWait     = false
)

func (s *Session) declare(b topology.Broker) error {
	for _, e := range b.Exchanges {
		if err := s.declareExchange(e); err != nil {
			return err
		}
	}
	for _, q := range b.Queues {
		err := s.call(func() error {
			_, err := s.ch.QueueDeclare(q.Name, durable, autoDelete, exclusive, noWait, amqp.Table(q.Args))
			return err
		})
		if err != nil {
			return fmt.Errorf("declare queue %s: %w%s", q.Name, err, remedy(err, "queue", q.Name))
		}
	}
	for _, bind := range b.Bindings {
		err := s.call(func() error {
			return s.ch.QueueBind(bind.Queue, bind.Key, bind.Exchange, noWait, nil)
		})
		if err != nil {
			return fmt.Errorf("bind queue %s to %s with %s: %w", bind.Queue, bind.Exchange, bind.Key, err)
		}
	}
	return nil
}

func (s *Session) declareExchange(e topology.Exchange) error {
	err := s.call(func() error {
		return s.ch.ExchangeDeclare(e.Name, e.Kind, durable, autoDelete, internal, noWait,
			amqp.Table(e.Args))
	})
	if err != nil {
		return fmt.Errorf("declare exchange %s: %w%s", e.Name, err, remedy(err, "exchange", e.Name))
	}
	return nil
}

// remedy returns what to do about an object that exists with other arguments.
func remedy(err error, kind, name string) string {
	if !IsConflict(err) {
		return ""
	}
	if kind == "queue" {
		return "; it exists with other arguments: " + migrateCommand
	}
	return fmt.Sprintf(
		"; it exists with other arguments: drain it, then delete the %s %s and apply again", kind, name)
}
