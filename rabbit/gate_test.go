package rabbit_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/rabbit"
)

// However many deliveries the prefetch allows, those in hand have not many more bytes than the
// bound: a delivery that has begun is read to its end.
func TestBytesInHandAreBounded(t *testing.T) {
	t.Parallel()
	const count, size, bound = 200, 100_000, 1_000_000
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	messages := batch("k", 0, count, true)
	for i := range messages {
		messages[i].Body = make([]byte, size)
	}
	for _, pending := range publish(t, p, messages...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	d, err := rabbit.Subscribe(open(t, url), "q", count, bound)
	must(t, err)
	var unacked []amqp.Delivery
	for range count {
		m := next(t, d)
		if inHand := d.InHand(); inHand > bound+size {
			t.Fatalf("%d bytes in hand, want about %d", inHand, bound)
		}
		if unacked = append(unacked, m); len(unacked) == bound/size {
			must(t, d.Ack(unacked...))
			unacked = nil
		}
	}
	until(t, "nothing is in hand", func() bool { return d.InHand() == 0 })
}

// A session whose gate is shut ends at once when it is closed, or when no more is wanted.
func TestShutGateHoldsUpNoEnd(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	messages := batch("k", 0, 10, true)
	for i := range messages {
		messages[i].Body = make([]byte, 1000)
	}
	for _, pending := range publish(t, p, messages...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	d, err := rabbit.Subscribe(open(t, url), "q", 10, 1)
	must(t, err)
	m := next(t, d)
	must(t, d.Stop())
	must(t, d.Ack(m)) // what is in hand can still be acknowledged
	d.Close()
	until(t, "the others are in the queue", func() bool {
		n := depth(t, channel(t, url))
		return n == 9
	})
}
