package rabbit

import (
	"cmp"
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of a tail.
const (
	tailQueue    = 10_000 // events that the broker keeps for a slow reader; older ones are dropped
	tailPrefetch = 100
	tailBytes    = 16 << 20
)

// Tailed is a message that was published.
type Tailed struct {
	events.Record        // with the routing key as its type, if it has none
	Exchange      string // through which it came
	Fault         error  // why it is no event
}

// Tail passes to f what is published through the exchanges of a topology, until ctx is done or f
// returns an error. It returns the error of f, or of the session. It reads a queue of its own that
// the broker deletes with the session, so no service notices it. What is published faster than f
// reads is dropped, the oldest first. The function ready is called when nothing more is missed.
func Tail(ctx context.Context, url string, t topology.Topology, ready func(),
	f func(m Tailed) error) error {
	s, err := Open(ctx, url, t.Name+"/tail")
	if err != nil {
		return err
	}
	defer s.Close()
	queue, err := s.declareTail(t)
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	d, err := Subscribe(s, queue, "", tailPrefetch, tailBytes)
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-d.C():
			if !ok {
				<-s.Done()
				return fmt.Errorf("tail: %w", s.Err())
			}
			record, fault := Record(m)
			record.Type = cmp.Or(record.Type, m.RoutingKey)
			if err := f(Tailed{record, m.Exchange, fault}); err != nil {
				return err
			}
			if err := d.Ack(m); err != nil {
				return fmt.Errorf("tail: %w", err)
			}
		}
	}
}

// declareTail declares a queue that gets a copy of all events.
func (s *Session) declareTail(t topology.Topology) (name string, err error) {
	err = s.call(func() error {
		q, err := s.ch.QueueDeclare("", false, true, true, noWait,
			amqp.Table{"x-max-length": tailQueue, "x-overflow": "drop-head"})
		name = q.Name
		return err
	})
	if err != nil {
		return "", err
	}
	for _, service := range t.Services {
		if len(service.Publishes()) == 0 {
			continue
		}
		exchange := topology.ExchangeOf(service.Name)
		if err := s.call(func() error {
			return s.ch.QueueBind(name, "#", exchange, noWait,
				nil)
		}); err != nil {
			if ServerCode(err) == amqp.NotFound {
				err = fmt.Errorf("%w: %w", ErrNotApplied, err)
			}
			return "", fmt.Errorf("bind to %s: %w", exchange, err)
		}
	}
	return name, nil
}
