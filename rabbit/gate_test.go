package rabbit_test

import (
	"errors"
	"testing"
	"time"

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
	for i := range messages { // the bytes of some are in their headers
		if i%2 == 0 {
			messages[i].Body = make([]byte, size)
		} else {
			messages[i].Headers = amqp.Table{"large": string(make([]byte, size))}
		}
	}
	for _, pending := range publish(t, p, messages...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	d, err := rabbit.Subscribe(open(t, url), "q", count, bound)
	must(t, err)
	var unacked []amqp.Delivery
	for range count {
		m := next(t, d)
		if inHand := d.InHand(); inHand > bound+2*size {
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

// A gate that stays shut ends the session before the broker does, and says how many deliveries were
// in hand, so that the next session asks for fewer.
func TestGateThatStaysShutEndsTheSession(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	messages := batch("k", 0, 20, true)
	for i := range messages {
		messages[i].Body = make([]byte, 100_000)
	}
	for _, pending := range publish(t, p, messages...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	s := open(t, url)
	s.SetGatePatience(100 * time.Millisecond)
	d, err := rabbit.Subscribe(s, "q", 20, 500_000)
	must(t, err)
	until(t, "the session is over", func() bool { return d.Err() != nil })
	why, ok := errors.AsType[rabbit.BytesInHandError](d.Err())
	if !ok || why.Messages != 5 || why.Bytes < 500_000 || rabbit.CauseOf(d.Err()) != "bytes" {
		t.Errorf("it ended with %v", d.Err())
	}
	d, err = rabbit.Subscribe(open(t, url), "q", why.Messages/2, 500_000)
	must(t, err)
	for range 20 {
		must(t, d.Ack(next(t, d)))
	}
}
