package consumer_test

import (
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// refuse makes the broker dead-letter what is in the bank's queue.
func refuse(t *testing.T, w *consumertest.Env, count int) {
	t.Helper()
	conn, err := amqp.Dial(w.AMQP)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	messages, err := ch.Consume(topology.QueueOf(consumertest.Service), "", false, false, false, false,
		nil)
	if err != nil {
		t.Fatal(err)
	}
	for range count {
		if err := (<-messages).Nack(false, false); err != nil {
			t.Fatal(err)
		}
	}
}

// Events that the broker gave up to deliver may be the only copies there are: all are kept,
// whatever bound there is for what is malformed.
func TestDeadLettersThatAreEventsAreAllKept(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	const most, count = 10, 50
	var messages []rabbit.Message
	for i := range count {
		messages = append(messages, w.Message(consumertest.Event(consumertest.Shop,
			consumertest.Noted{Order: fmt.Sprint(i)})))
	}
	w.Publish(messages...)
	refuse(t, w, count)
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), note("bank"))
	c.MalformedMessages = most
	stop := w.Start(c)
	w.Eventually("all are settled", func() (bool, string) {
		s := c.Stats()
		return s.Parked+s.Dropped == count, fmt.Sprintf("%+v", s)
	})
	stop()
	if n := w.Int(`SELECT count(*) FROM pending WHERE due IS NULL AND exchange = 'dead'`); n != count {
		t.Errorf("%d of %d dead events are kept", n, count)
	}
}

// The broker adds headers to what it dead-letters, so that they may no longer fit into a frame of
// the size that was agreed on. It ends no session.
func TestDeadLetterWhoseHeadersOutgrowAFrameIsParked(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "large"}))
	const frame, properties = 131072 - 8, 300 // what the broker agrees to, and the other properties
	size := properties
	for key, value := range m.Headers {
		size += 1 + len(key) + 1 + 4 + len(value.(string))
	}
	m.Headers["pad"] = strings.Repeat("x", frame-size)
	w.Publish(m, w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "other"})))
	refuse(t, w, 2)
	_, stop := w.Bank(note("bank"))
	w.Becomes(2, `SELECT count(*) FROM pending WHERE due IS NULL AND exchange = 'dead'
		AND attributes->>'id' IS NOT NULL`)
	stop()
}
