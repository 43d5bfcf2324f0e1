package quadrilletest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// marker is the type of the message with which a Recorder finds the end of its queue.
const marker = "quadrilletest.marker"

// Recorder keeps the events that services publish. It survives a restart of the broker. A broker
// that is killed may forget the queue and its bindings, if they were declared in its last seconds.
// The recorder then declares them again, but an event that a service publishes before is not
// recorded: keep the services away with Proxy.Down until ExpectNoMore has returned.
type Recorder struct {
	t        testing.TB
	amqpURL  string
	queue    string
	services []string

	mu       sync.Mutex
	seen     map[string]bool // the ids of events and markers
	waiting  []events.Record // events that Await has not returned
	received int
}

// Record begins to record the events that services publish in a virtual host, until the test ends.
// It declares their exchanges, so it may begin before the services run, and then misses nothing.
func Record(t testing.TB, amqpURL string, services ...string) *Recorder {
	t.Helper()
	r := &Recorder{t: t, amqpURL: amqpURL, queue: "quadrilletest." + events.NewID(),
		services: services, seen: map[string]bool{}}
	if err := r.onChannel(r.bind); err != nil {
		t.Fatalf("record the events of %v: %v", services, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.consume(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

// bind declares the queue of the recorder and its bindings, which may exist.
func (r *Recorder) bind(ch *amqp.Channel) error {
	if _, err := ch.QueueDeclare(r.queue, true, false, false, false, nil); err != nil {
		return err
	}
	for _, service := range r.services {
		exchange := topology.ExchangeOf(service)
		if err := ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
			return err
		}
		if err := ch.QueueBind(r.queue, "#", exchange, false, nil); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recorder) onChannel(f func(ch *amqp.Channel) error) error {
	conn, err := amqp.Dial(r.amqpURL)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // what was done is confirmed
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}

// consume records until ctx is done. When its connection ends, it makes a new one.
func (r *Recorder) consume(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		_ = r.onChannel(func(ch *amqp.Channel) error { // an error ends the connection
			if err := r.bind(ch); err != nil {
				return err
			}
			deliveries, err := ch.ConsumeWithContext(ctx, r.queue, "", false, false, false, false, nil)
			if err != nil {
				return err
			}
			for d := range deliveries {
				r.keep(d)
				if err := d.Ack(false); err != nil {
					return err
				}
			}
			return nil
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (r *Recorder) keep(d amqp.Delivery) {
	record, err := rabbit.Record(d)
	if err != nil { // a test may publish malformed events: what can be read of them is recorded
		record.ID, record.Type, record.Data = d.MessageId, d.RoutingKey, d.Body
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if record.ID != "" && r.seen[record.ID] {
		return // delivery is at least once
	}
	r.seen[record.ID] = true
	if record.Type != marker {
		r.received++
		r.waiting = append(r.waiting, record)
	}
}

// Await waits for an event of a type about a subject that it has not returned before, and returns
// it. An event that was delivered twice counts once.
func (r *Recorder) Await(eventType, subject string) (found events.Record) {
	r.t.Helper()
	WaitFor(r.t, fmt.Sprintf("%s about %s is published", eventType, subject), func() (bool, string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		i := slices.IndexFunc(r.waiting, func(e events.Record) bool {
			return e.Type == eventType && e.Subject == subject
		})
		if i < 0 {
			return false, fmt.Sprintf("%d events, %s", r.received, list(r.waiting))
		}
		found = r.waiting[i]
		r.waiting = slices.Delete(r.waiting, i, i+1)
		return true, ""
	})
	return found
}

// ExpectNoMore fails the test if an event was published that Await has not returned. It sees all
// that the broker has received until now. A service may publish more later, so stop it first, or
// wait until it is at rest.
func (r *Recorder) ExpectNoMore() {
	r.t.Helper()
	id := events.NewID()
	err := r.onChannel(func(ch *amqp.Channel) error {
		if err := r.bind(ch); err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		c, err := ch.PublishWithDeferredConfirmWithContext(r.t.Context(), "", r.queue, true, false,
			amqp.Publishing{MessageId: id, Type: marker, DeliveryMode: amqp.Persistent,
				ContentType: "application/json", Body: []byte("{}")})
		if err != nil {
			return err
		}
		_, err = c.WaitContext(r.t.Context())
		return err
	})
	if err != nil {
		r.t.Fatalf("look for more events: %v", err)
	}
	WaitFor(r.t, "all published events are recorded", func() (bool, string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.seen[id], fmt.Sprintf("%d events", r.received)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) > 0 {
		r.t.Errorf("more events were published: %s", list(r.waiting))
	}
}

// list names events for a person.
func list(all []events.Record) string {
	var names []string
	for _, e := range all {
		names = append(names, e.Type+" about "+e.Subject)
	}
	return "not awaited: [" + strings.Join(names, ", ") + "]"
}
