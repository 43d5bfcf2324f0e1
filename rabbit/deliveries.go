package rabbit

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Deliveries is a subscription to one queue with bounded prefetch.
type Deliveries struct {
	*Session
	messages <-chan amqp.Delivery
}

const consumerTag = "quadrille"

// Subscribe consumes a queue on the session and takes it over. At most prefetch deliveries are
// unacknowledged at a time; it must be at least 1. No further delivery is read while those that are
// unacknowledged have maxBytes or more; AMQP 0-9-1 has no such bound of its own. If that lasts, the
// session ends with a BytesInHandError. It also ends when the broker cancels the subscription.
func Subscribe(s *Session, queue string, prefetch int, maxBytes int64) (*Deliveries, error) {
	s.socket.frames.gate.limit(maxBytes,
		func(why BytesInHandError) { s.end(fmt.Errorf("%w: %w", ErrClosed, why)) })
	// Per consumer: quorum queues refuse the global form.
	if err := s.call(func() error { return s.ch.Qos(prefetch, 0, false) }); err != nil {
		return nil, fmt.Errorf("set prefetch of %s: %w", queue, err)
	}
	cancelled := s.ch.NotifyCancel(make(chan string, 1))
	var messages <-chan amqp.Delivery
	err := s.call(func() (err error) {
		messages, err = s.ch.Consume(queue, consumerTag, false, false, false, false, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("consume %s: %w", queue, err)
	}
	go func() {
		if _, ok := <-cancelled; ok { // closed with the channel
			s.end(fmt.Errorf("%w: the broker cancelled the consumer of %s: the queue was deleted or moved",
				ErrClosed, queue))
		}
	}()
	return &Deliveries{Session: s, messages: messages}, nil
}

// C is closed when the session is over or after Stop.
func (d *Deliveries) C() <-chan amqp.Delivery { return d.messages }

// Stop asks the broker for no more deliveries and does not wait for its answer, which comes after
// all that is on its way; those in hand can still be acknowledged.
func (d *Deliveries) Stop() error {
	if err := d.call(func() error { return d.ch.Cancel(consumerTag, true) }); err != nil {
		return fmt.Errorf("cancel consumer: %w", err)
	}
	return nil
}

// Ack acknowledges deliveries of this session, one by one but in one write. A delivery of another
// session is refused: its tag means another message here. Safe for concurrent use.
func (d *Deliveries) Ack(batch ...amqp.Delivery) error {
	d.socket.cork()
	for _, m := range batch {
		if m.Acknowledger != amqp.Acknowledger(d.ch) {
			_ = d.socket.uncork()
			return fmt.Errorf("acknowledge: delivery %d came through another session", m.DeliveryTag)
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
