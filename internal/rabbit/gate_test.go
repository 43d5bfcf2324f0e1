package rabbit_test

import (
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// With any prefetch, the unacknowledged deliveries exceed the bound on bytes by little: only
// a delivery that has begun is still read completely.
func TestUnackedBytesAreBounded(t *testing.T) {
	t.Parallel()
	const count, size, bound = 200, 100_000, 1_000_000
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	messages := batch("k", 0, count, true)
	for i := range messages { // every second message has its bytes in a header
		if i%2 == 0 {
			messages[i].Body = make([]byte, size)
		} else {
			messages[i].Headers = amqp.Table{"large": string(make([]byte, size))}
		}
	}
	for _, pending := range publish(t, p, messages...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	d, err := rabbit.Subscribe(open(t, url), "q", "", count, bound)
	must(t, err)
	var unacked []amqp.Delivery
	for range count {
		m := next(t, d)
		if unackedBytes := d.UnackedBytes(); unackedBytes > bound+2*size {
			t.Fatalf("%d unacknowledged bytes, want about %d", unackedBytes, bound)
		}
		if unacked = append(unacked, m); len(unacked) == bound/size {
			must(t, d.Ack(unacked...))
			unacked = nil
		}
	}
	waitFor(t, "nothing is unacknowledged", func() bool { return d.UnackedBytes() == 0 })
}

// A closed gate does not delay Stop, Ack or Close.
func TestClosedGateDoesNotDelayTheEnd(t *testing.T) {
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
	d, err := rabbit.Subscribe(open(t, url), "q", "", 10, 1)
	must(t, err)
	m := next(t, d)
	must(t, d.Stop())
	must(t, d.Ack(m)) // a delivery can still be acknowledged after Stop
	d.Close()
	waitFor(t, "the others are in the queue", func() bool {
		n := depth(t, channel(t, url))
		return n == 9
	})
}

// A gate that stays closed ends the session before the broker does. The error has the number of
// unacknowledged deliveries, so that the next session can use a smaller prefetch.
func TestGateThatStaysClosedEndsTheSession(t *testing.T) {
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
	s.SetGateTimeout(100 * time.Millisecond)
	d, err := rabbit.Subscribe(s, "q", "", 20, 500_000)
	must(t, err)
	waitFor(t, "the session is over", func() bool { return d.Err() != nil })
	why, ok := errors.AsType[rabbit.BytesInHandError](d.Err())
	if !ok || why.Messages != 5 || why.Bytes < 500_000 || rabbit.CauseOf(d.Err()) != "bytes" {
		t.Errorf("the session ended with %v", d.Err())
	}
	d, err = rabbit.Subscribe(open(t, url), "q", "", why.Messages/2, 500_000)
	must(t, err)
	for range 20 {
		must(t, d.Ack(next(t, d)))
	}
}
