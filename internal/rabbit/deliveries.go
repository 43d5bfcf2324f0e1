package rabbit

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Deliveries is a subscription to one queue with bounded prefetch.
type Deliveries struct {
	*Session
	messages <-chan amqp.Delivery
	tag      string
}

// Subscribe consumes a queue on the session, which it takes over. The consumer tag is the name of
// the queue, an @, and the identity of the database for which it is consumed, which may be empty:
// Audit finds by it a queue that is consumed for two databases. At most prefetch deliveries, at
// least 1, are unacknowledged at a time. While the unacknowledged deliveries have maxBytes or more,
// the session reads no further ones; AMQP 0-9-1 itself has no bound on bytes. If that lasts for
// long, the session ends with a BytesInHandError. It also ends when the broker cancels the
// subscription.
func Subscribe(s *Session, queue, database string, prefetch int, maxBytes int64) (*Deliveries,
	error) {
	s.socket.frames.gate.setBound(maxBytes,
		func(why BytesInHandError) { s.end(fmt.Errorf("%w: %w", ErrClosed, why)) })
	// The bound is per consumer, since quorum queues refuse a global one.
	if err := s.call(func() error { return s.ch.Qos(prefetch, 0, false) }); err != nil {
		return nil, fmt.Errorf("set prefetch of %s: %w", queue, err)
	}
	cancelled := s.ch.NotifyCancel(make(chan string, 1))
	tag := queue
	if database != "" {
		tag += "@" + database
	}
	var messages <-chan amqp.Delivery
	err := s.call(func() (err error) {
		messages, err = s.ch.Consume(queue, tag, false, false, false, false, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("consume %s: %w", queue, err)
	}
	go func() {
		if _, ok := <-cancelled; ok { // not ok: the driver has closed it with the AMQP channel
			s.end(fmt.Errorf("%w: the broker cancelled the consumer of %s: the queue was deleted or moved",
				ErrClosed, queue))
		}
	}()
	return &Deliveries{Session: s, messages: messages, tag: tag}, nil
}

// C returns the channel of the deliveries. It is closed at the end of the session or after Stop.
func (d *Deliveries) C() <-chan amqp.Delivery { return d.messages }

// Stop cancels the subscription. It does not wait for the answer of the broker, which arrives after
// the deliveries that are already on their way. Unacknowledged deliveries can still be
// acknowledged.
func (d *Deliveries) Stop() error {
	if err := d.call(func() error { return d.ch.Cancel(d.tag, true) }); err != nil {
		return fmt.Errorf("cancel consumer: %w", err)
	}
	return nil
}

// Ack acknowledges deliveries of this session, each by itself but all in one write. It refuses
// a delivery of another session, since its tag belongs to a different message in this one. It is
// safe for concurrent use.
func (d *Deliveries) Ack(batch ...amqp.Delivery) error {
	d.socket.cork()
	for _, m := range batch {
		if m.Acknowledger != amqp.Acknowledger(d.ch) {
			_ = d.socket.uncork()
			return fmt.Errorf("acknowledge: delivery %d belongs to another session", m.DeliveryTag)
		}
		if err := d.ch.Ack(m.DeliveryTag, false); err != nil {
			_ = d.socket.uncork()
			return fmt.Errorf("acknowledge: %w", err)
		}
		d.socket.frames.gate.release(m.DeliveryTag, int64(len(m.Body)))
	}
	if err := d.socket.uncork(); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}
