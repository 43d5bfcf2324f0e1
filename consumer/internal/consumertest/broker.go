package consumertest

import (
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// Event is what a service says, with a new id.
func Event(service string, p events.Payload) events.Event {
	return events.Cause(events.Event{}, topology.SourceOf(service), time.Now(), p)
}

// Message puts an event on the wire as its service does.
func (w *Env) Message(e events.Event) rabbit.Message {
	w.Helper()
	record, err := e.Record()
	if err != nil {
		w.Fatal(err)
	}
	return rabbit.Message{
		Exchange: topology.ExchangeOf(e.Source[1:]), Key: record.Type, Mandatory: true,
		Publishing: rabbit.Publishing(record),
	}
}

// PublishAs publishes payloads of one service and returns their events.
func (w *Env) PublishAs(service string, payloads ...events.Payload) []events.Event {
	w.Helper()
	var published []events.Event
	var messages []rabbit.Message
	for _, p := range payloads {
		e := Event(service, p)
		published, messages = append(published, e), append(messages, w.Message(e))
	}
	w.Publish(messages...)
	return published
}

// Publish publishes messages and waits for their confirms.
func (w *Env) Publish(messages ...rabbit.Message) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.publisher == nil || w.publisher.Err() != nil {
		session, err := rabbit.Open(w.Context(), w.AMQP, "test/publish")
		if err != nil {
			w.Fatal(err)
		}
		if w.publisher, err = rabbit.NewPublisher(session); err != nil {
			w.Fatal(err)
		}
	}
	for len(messages) > 0 {
		n := min(len(messages), rabbit.MaxInFlight)
		pendings, err := w.publisher.Publish(messages[:n])
		if err != nil {
			w.Fatal(err)
		}
		for _, p := range pendings {
			outcome, why, err := w.publisher.Wait(w.Context(), p)
			if err != nil || outcome != rabbit.Confirmed {
				w.Fatalf("publish: outcome %v: %v, %v", outcome, why, err)
			}
		}
		messages = messages[n:]
	}
}

// Consumers waits until a queue has that many.
func (w *Env) Consumers(queue string, want int) (found amqp.Queue) {
	w.Helper()
	w.onChannel(func(ch *amqp.Channel) (err error) {
		w.Eventually(fmt.Sprintf("%d consumers of %s", want, queue), func() (bool, string) {
			found, err = ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			return err != nil || found.Consumers == want, fmt.Sprint(found)
		})
		return err
	})
	return found
}

// Holds waits until a queue has that many messages and no consumer any more. It asks again, since
// the broker says 0 while the queue's own process is too busy to answer.
func (w *Env) Holds(queue string, want int) {
	w.Helper()
	w.Eventually(fmt.Sprintf("%d messages in %s", want, queue), func() (bool, string) {
		n := w.Depth(queue)
		return n == want, fmt.Sprintf("they are %d; %s", n, w.Diagnosis())
	})
}

// Depth returns how many messages are in a queue once its consumers are gone, for what they had in
// hand goes back then.
func (w *Env) Depth(queue string) int {
	w.Helper()
	return w.Consumers(queue, 0).Messages
}

// Bind adds a binding of a queue that the topology does not have.
func (w *Env) Bind(queue, key, exchange string) {
	w.Helper()
	w.onChannel(func(ch *amqp.Channel) error { return ch.QueueBind(queue, key, exchange, false, nil) })
}

// Reject takes the first message of a queue and refuses it, so that it is dead-lettered.
func (w *Env) Reject(queue string) {
	w.Helper()
	w.onChannel(func(ch *amqp.Channel) (err error) {
		w.Eventually("a message in "+queue, func() (bool, string) {
			var d amqp.Delivery
			var ok bool
			if d, ok, err = ch.Get(queue, false); ok {
				err = d.Reject(false)
			}
			return ok || err != nil, ""
		})
		return err
	})
}

// Recreate deletes a queue and declares and binds it again at once, as a person might.
func (w *Env) Recreate(queue string) {
	w.Helper()
	w.onChannel(func(ch *amqp.Channel) error {
		if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
			return err
		}
		want := w.Topology.Broker()
		for _, q := range want.Queues {
			if q.Name != queue {
				continue
			}
			if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table(q.Args)); err != nil {
				return err
			}
		}
		for _, b := range want.Bindings {
			if b.Queue != queue {
				continue
			}
			if err := ch.QueueBind(queue, b.Key, b.Exchange, false, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *Env) onChannel(f func(ch *amqp.Channel) error) {
	w.Helper()
	conn, err := amqp.Dial(w.AMQP)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err == nil {
		err = f(ch)
	}
	if err != nil {
		w.Fatal(err)
	}
}
