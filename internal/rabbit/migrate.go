package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of a migration.
const (
	migrateInterval = 500 * time.Millisecond
	// migrateQuiet is how long a queue must be empty before it is deleted. The management API counts
	// deliveries that are not acknowledged, but learns of them every five seconds only.
	migrateQuiet = 11 * time.Second
	// migrateFinish bounds what must be done once queues are unbound.
	migrateFinish = time.Minute
)

// ErrNotDrained means that a queue was not emptied in time, and is bound again as it was.
var ErrNotDrained = errors.New("it was not emptied in time")

// Migrated is what Migrate has done. Events that were published meanwhile did not reach the queues:
// their publishers must replay them, also after an error.
type Migrated struct {
	Queues []string `json:"queues"` // that were recreated
	// Missed are the types of events that queues may have missed since the call.
	Missed []string `json:"missed"`
}

// Migrate applies a topology, and recreates the queues whose arguments the broker cannot change.
// Such a queue is unbound, emptied by its consumers within the timeout, deleted, and declared and
// bound again. A queue that is not emptied is bound again as it was. The end of ctx stops the
// migration only while nothing is unbound or queues are being emptied.
func Migrate(ctx context.Context, managementURL, brokerURL string, t topology.Topology,
	timeout time.Duration) (done Migrated, err error) {
	done = Migrated{Queues: []string{}, Missed: []string{}}
	if err := t.Validate(); err != nil {
		return done, fmt.Errorf("migrate topology: %w", err)
	}
	l, err := inspect(ctx, managementURL, brokerURL)
	if err != nil {
		return done, fmt.Errorf("migrate topology: %w", err)
	}
	queues := l.immutable(t)
	if len(queues) == 0 {
		return done, Apply(ctx, brokerURL, t)
	}
	s, err := Open(ctx, brokerURL, t.Name+"/migrate")
	if err != nil {
		return done, fmt.Errorf("migrate topology: %w", err)
	}
	defer s.Close()
	bindings := l.bindingsOf(queues)
	for _, b := range bindings {
		if !slices.Contains(done.Missed, b.Key) {
			done.Missed = append(done.Missed, b.Key)
		}
	}
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout+migrateFinish)
	defer cancel()
	for _, b := range bindings {
		if err = s.call(func() error {
			return s.ch.QueueUnbind(b.Queue, b.Key, b.Exchange,
				nil)
		}); err != nil {
			break
		}
	}
	if err == nil {
		err = s.drain(ctx, managementURL, brokerURL, queues, timeout)
	}
	if err != nil {
		return done, errors.Join(fmt.Errorf("migrate topology: %w", err), rebind(finish, brokerURL,
			t.Name, bindings))
	}
	for _, q := range queues {
		if err := s.call(func() error {
			_, err := s.ch.QueueDelete(q, false, false, noWait)
			return err
		}); err != nil {
			return done, errors.Join(fmt.Errorf("migrate topology: delete queue %s: %w", q, err),
				Apply(finish, brokerURL, t))
		}
		done.Queues = append(done.Queues, q)
	}
	if err := gone(finish, managementURL, l.vhost, queues); err != nil {
		return done, errors.Join(fmt.Errorf("migrate topology: %w", err), Apply(finish, brokerURL, t))
	}
	return done, Apply(finish, brokerURL, t)
}

// gone waits until the consumers of deleted queues are cancelled. If a quorum queue is declared
// again before, RabbitMQ 3.10 keeps such a consumer: it counts as one of the new queue, and its
// channel drops what that delivers, as if it had come before.
func gone(ctx context.Context, managementURL, vhost string, queues []string) error {
	tick := time.NewTicker(migrateInterval)
	defer tick.Stop()
	for {
		select { // first, since a broker without statistics lists none
		case <-ctx.Done():
			return fmt.Errorf("wait until the consumers of %s are cancelled: %w",
				strings.Join(queues, ", "), ctx.Err())
		case <-tick.C:
		}
		all, _, err := subscriptions(ctx, managementURL, vhost)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(s subscription) bool {
			return slices.Contains(queues, s.Queue.Name)
		}) {
			return nil
		}
	}
}

// immutable returns the queues that exist with other arguments than t declares, sorted.
func (l listing) immutable(t topology.Topology) (queues []string) {
	want := map[string]topology.Queue{}
	for _, q := range t.Broker().Queues {
		want[q.Name] = q
	}
	for _, q := range l.Queues {
		ours, known := want[q.Name]
		if known && (diffArguments(ours.Args, q.Arguments) != "" || !q.Durable) {
			queues = append(queues, q.Name)
		}
	}
	slices.Sort(queues)
	return queues
}

// bindingsOf returns the bindings of queues as the broker has them.
func (l listing) bindingsOf(queues []string) (all []topology.Binding) {
	for _, b := range l.Bindings {
		if b.Kind == "queue" && b.Source != "" && slices.Contains(queues, b.Destination) {
			all = append(all, topology.Binding{Exchange: b.Source, Key: b.Key, Queue: b.Destination})
		}
	}
	return all
}

// drain waits until queues have had no messages for migrateQuiet, delivered ones included.
func (s *Session) drain(ctx context.Context, managementURL, brokerURL string, queues []string,
	timeout time.Duration) error {
	until := time.Now().Add(timeout)
	tick := time.NewTicker(migrateInterval)
	defer tick.Stop()
	for empty := time.Now(); time.Since(empty) < migrateQuiet; {
		depths, err := Depths(ctx, managementURL, brokerURL)
		if err != nil {
			return err
		}
		var full []string
		for _, queue := range queues {
			var q amqp.Queue
			if err := s.call(func() (err error) {
				q, err = s.ch.QueueDeclarePassive(queue, durable, autoDelete, exclusive, noWait, nil)
				return err
			}); err != nil {
				return fmt.Errorf("look at queue %s: %w", queue, err)
			}
			if n := max(depths[queue], int64(q.Messages)); n > 0 {
				full = append(full, fmt.Sprintf("%s has %d messages and %d consumers", queue, n, q.Consumers))
			}
		}
		if len(full) > 0 {
			empty = time.Now()
			if empty.After(until) {
				return fmt.Errorf("%w: %s", ErrNotDrained, strings.Join(full, ", "))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// rebind binds queues again as they were, in a session of its own.
func rebind(ctx context.Context, url, name string, bindings []topology.Binding) error {
	s, err := Open(ctx, url, name+"/migrate")
	if err != nil {
		return fmt.Errorf("bind the queues again: %w", err)
	}
	defer s.Close()
	if err := s.declare(topology.Broker{Bindings: bindings}); err != nil {
		return fmt.Errorf("bind the queues again: %w", err)
	}
	return nil
}
