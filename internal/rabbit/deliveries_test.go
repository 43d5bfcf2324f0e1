package rabbit_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

func subscribe(t *testing.T, url string, prefetch int) *rabbit.Deliveries {
	t.Helper()
	d, err := rabbit.Subscribe(open(t, url), "q", "", prefetch, 0)
	must(t, err)
	return d
}

func next(t *testing.T, d *rabbit.Deliveries) amqp.Delivery {
	t.Helper()
	deadline := time.NewTimer(waitTimeout)
	defer deadline.Stop()
	select {
	case m, ok := <-d.C():
		if !ok {
			t.Fatalf("no more deliveries: %v", d.Err())
		}
		return m
	case <-deadline.C:
		t.Fatal("no delivery")
	}
	return amqp.Delivery{}
}

func filledQueue(t *testing.T, n int) (url string, admin *amqp.Channel) {
	t.Helper()
	url, admin = vhost(t, nil)
	p := publisher(t, url)
	for _, pending := range publish(t, p, batch("k", 0, n, true)...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	return url, admin
}

func depth(t *testing.T, admin *amqp.Channel) int {
	t.Helper()
	q, err := admin.QueueDeclarePassive("q", true, false, false, false, nil)
	must(t, err)
	return q.Messages
}

func TestUnackedDeliveriesAreRedelivered(t *testing.T) {
	t.Parallel()
	url, admin := filledQueue(t, 10)
	d := subscribe(t, url, 10)
	var got []amqp.Delivery
	for range 10 {
		got = append(got, next(t, d))
	}
	must(t, d.Ack(got[0], got[2], got[9]))
	d.Close()
	waitFor(t, "the seven unacknowledged are in the queue",
		func() bool { return depth(t, admin) == 7 })
}

func TestPrefetchBoundsUnackedDeliveries(t *testing.T) {
	t.Parallel()
	url, admin := filledQueue(t, 10)
	d := subscribe(t, url, 3)
	for range 3 {
		next(t, d)
	}
	waitFor(t, "seven are left in the queue with a prefetch of 3",
		func() bool { return depth(t, admin) == 7 })
	select {
	case <-d.C():
		t.Error("a fourth delivery with a prefetch of 3, although none was acknowledged")
	default:
	}
}

// With the driver's own recovery this acknowledgement would settle another message.
func TestDeliveryOfAnotherSessionIsNotAcked(t *testing.T) {
	t.Parallel()
	url, admin := filledQueue(t, 2)
	first := subscribe(t, url, 1)
	old := next(t, first)
	first.Close()
	second := subscribe(t, url, 1)
	current := next(t, second)
	if old.DeliveryTag != current.DeliveryTag {
		t.Fatalf("tags %d and %d differ: the test proves nothing", old.DeliveryTag, current.DeliveryTag)
	}
	if err := second.Ack(old); err == nil {
		t.Error("a delivery of another session was acknowledged")
	}
	second.Close()
	waitFor(t, "both are in the queue", func() bool { return depth(t, admin) == 2 })
	if err := second.Ack(current); err == nil {
		t.Error("acknowledged on a closed session")
	}
}

func TestStoppedSubscriptionCanStillAck(t *testing.T) {
	t.Parallel()
	url, admin := filledQueue(t, 5)
	d := subscribe(t, url, 1)
	m := next(t, d)
	must(t, d.Stop())
	for range d.C() { // a delivery may still be on its way; then the channel is closed
		t.Error("a delivery beyond the prefetch")
	}
	must(t, d.Ack(m))
	if err := d.Err(); err != nil {
		t.Errorf("the session ended with the subscription: %v", err)
	}
	d.Close()
	waitFor(t, "four are left", func() bool { return depth(t, admin) == 4 })
}

func TestDeletedQueueEndsSession(t *testing.T) {
	t.Parallel()
	url, admin := filledQueue(t, 1)
	d := subscribe(t, url, 1)
	next(t, d)
	_, err := admin.QueueDelete("q", false, false, false)
	must(t, err)
	if err := waitClosed(t, d.Session); !errors.Is(err, rabbit.ErrClosed) ||
		!strings.Contains(err.Error(), "q") {
		t.Errorf("the session ended with %v", err)
	}
}

func TestMissingQueueIsReported(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	if _, err := rabbit.Subscribe(open(t, url), "missing", "", 1,
		0); rabbit.ServerCode(err) != amqp.NotFound {
		t.Errorf("error %v", err)
	}
}
