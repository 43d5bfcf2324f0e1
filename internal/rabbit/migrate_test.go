package rabbit_test

import (
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// A queue that differs and that nobody empties is bound again as it was, with what it holds. What
// it missed is named.
func TestQueueThatIsNotEmptiedStays(t *testing.T) {
	t.Parallel()
	broker, manage := servertest.Vhost(t)
	shop := named("shop", reacting("a"), reacting("b", "a.done"))
	must(t, rabbit.Apply(t.Context(), broker, shop))
	connection, err := amqp.Dial(broker)
	must(t, err)
	defer func() { _ = connection.Close() }()
	ch, err := connection.Channel()
	must(t, err)
	waitFor(t, "the queue is changed", func() bool {
		if ch.IsClosed() {
			ch, err = connection.Channel()
			must(t, err)
		}
		if _, err := ch.QueueDelete("b.in", false, false, false); err != nil {
			return false
		}
		_, err := ch.QueueDeclare("b.in", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
		return err == nil
	})
	must(t, ch.QueueBind("b.in", "a.done", "a.events", false, nil))
	publish := func() {
		t.Helper()
		must(t, ch.PublishWithContext(t.Context(), "a.events", "a.done", false, false, amqp.Publishing{}))
	}
	holds := func(n int) {
		t.Helper()
		waitFor(t, "messages in the queue", func() bool {
			q, err := ch.QueueDeclarePassive("b.in", true, false, false, false, nil)
			must(t, err)
			return q.Messages == n
		})
	}
	publish()
	holds(1)
	done, err := rabbit.Migrate(t.Context(), manage, broker, shop, time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "b.in has 1 messages and 0 consumers") ||
		len(done.Queues) != 0 || len(done.Missed) != 1 || done.Missed[0] != "a.done" {
		t.Errorf("%+v (%v)", done, err)
	}
	publish()
	holds(2)
}
