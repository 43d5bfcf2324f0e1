package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// MaxInFlight is how many publishings may wait for their confirm at the same time.
const MaxInFlight = 1000

// confirmTimeout is how long a confirm may take. A dead connection is noticed before, by its
// heartbeat.
const confirmTimeout = 30 * time.Second

// renewAfter is the least age of a session that ends because a route was refused from its start.
// RabbitMQ refuses everything for a quorum queue on a channel that was opened while the queue had
// no leader and the node of its last one was down, even after the election. Only another channel
// helps. With a queue that is really full, the other routes wait for a reconnect at most this
// often.
const renewAfter = 2 * time.Second

// errRefusedRoute ends a session on which the broker has accepted nothing for one route.
var errRefusedRoute = errors.New(
	"the broker refused everything for a route since the session began")

// Message is a message to publish.
type Message struct {
	Exchange  string
	Key       string
	Mandatory bool // the broker returns the message if no queue is bound for it
	amqp.Publishing
}

// Outcome is the outcome of a publishing.
type Outcome int

const (
	Unknown    Outcome = iota // the session ended first: publish the message again with the same id
	Confirmed                 // every queue to which it was routed has accepted it
	Refused                   // the broker nacked it, or did not confirm it in time
	Returned                  // it is mandatory and no queue is bound for it
	Unsendable                // it does not fit the protocol and was never sent
)

// Publisher publishes on a session in confirm mode. It is for one goroutine.
type Publisher struct {
	*Session
	returns     chan amqp.Return
	returned    map[string]string // by message id, why the broker returned it
	inFlight    int
	lastConfirm time.Time // when the last confirm was seen
	opened      time.Time
	renewAfter  time.Duration  // renewAfter, or that of a test
	accepted    map[route]bool // the routes of which the broker has accepted a message
	blocked     atomic.Bool
}

// route is what decides to which queues a message goes.
type route struct{ exchange, key string }

// Pending is a publishing that waits for its confirm.
type Pending struct {
	id          string
	route       route
	publishedAt time.Time
	confirm     *amqp.DeferredConfirmation
	unsendable  error // it was never sent
}

// Age returns the time since the message was published.
func (p *Pending) Age() time.Duration { return time.Since(p.publishedAt) }

// NewPublisher puts the session into confirm mode. It takes the session over.
func NewPublisher(s *Session) (*Publisher, error) {
	if err := s.call(func() error { return s.ch.Confirm(false) }); err != nil {
		return nil, fmt.Errorf("enter confirm mode: %w", err)
	}
	p := &Publisher{Session: s, returned: map[string]string{}, opened: time.Now(),
		renewAfter: renewAfter,
		accepted:   map[route]bool{}}
	// The broker may return every message in flight, and the driver drops a notification that is not
	// received in time. The channel has room for all of them, and for those whose confirm Wait has
	// given up, so that none is lost.
	p.returns = s.ch.NotifyReturn(make(chan amqp.Return, 2*MaxInFlight))
	blocked := s.conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	go func() {
		for b := range blocked { // the driver closes it with the connection
			p.blocked.Store(b.Active)
		}
	}()
	return p, nil
}

// Blocked reports whether the broker has blocked publishing, because of a memory or disk alarm.
func (p *Publisher) Blocked() bool { return p.blocked.Load() }

// Publish sends a batch in one write and returns one Pending for each message, in the same order.
// It does not wait for confirms. It fails only if the session is over, or if the batch would exceed
// MaxInFlight, in which case nothing was sent. After the end of the session the outcome of the
// whole batch is unknown.
func (p *Publisher) Publish(batch []Message) ([]*Pending, error) {
	if p.inFlight+len(batch) > MaxInFlight {
		return nil, fmt.Errorf("publish: %d in flight and %d more exceed %d", p.inFlight, len(batch),
			MaxInFlight)
	}
	p.socket.cork()
	pendings := make([]*Pending, len(batch))
	now := time.Now()
	for i, m := range batch {
		pendings[i] = &Pending{id: m.MessageId, route: route{m.Exchange, m.Key}, publishedAt: now}
		if err := checkSendable(m); err != nil {
			pendings[i].unsendable = err
			continue
		}
		// The message itself is valid, so an error now is a fault of the session, even if the driver has
		// not marked the channel as closed yet. A broken connection must not count against a message.
		confirm, err := p.ch.PublishWithDeferredConfirm(m.Exchange, m.Key, m.Mandatory, false,
			m.Publishing)
		if err != nil {
			_ = p.socket.uncork()
			return nil, p.closedReason(err)
		}
		pendings[i].confirm = confirm
		p.inFlight++
	}
	if err := p.socket.uncork(); err != nil {
		return nil, p.closedReason(err)
	}
	return pendings, nil
}

// Wait returns the outcome of a publishing and, unless it is Confirmed, the reason as the first
// error. The second error is not nil only if ctx has ended.
func (p *Publisher) Wait(ctx context.Context, pending *Pending) (Outcome, error, error) {
	if pending.unsendable != nil {
		return Unsendable, pending.unsendable, nil
	}
	select {
	case <-pending.confirm.Done():
	default:
		timer := time.NewTimer(time.Until(pending.publishedAt.Add(confirmTimeout)))
		defer timer.Stop()
		select {
		case <-pending.confirm.Done():
		case <-timer.C:
			p.inFlight--
			return p.confirmTimedOut(pending)
		case <-ctx.Done():
			return Unknown, nil, ctx.Err()
		}
	}
	p.inFlight--
	if !pending.confirm.Acked() {
		// When a channel closes, the driver reports everything in flight as not acked. It marks the
		// channel as closed first.
		if p.ch.IsClosed() || p.Err() != nil {
			return Unknown, p.closedReason(nil), nil
		}
		return p.refused(pending)
	}
	p.lastConfirm = time.Now()
	p.accepted[pending.route] = true
	// The broker returns a message before it confirms it, and one goroutine of the driver dispatches
	// both in order. A return of this message is therefore in the channel by now.
	p.drainReturns()
	if why, ok := p.returned[pending.id]; ok {
		delete(p.returned, pending.id)
		return Returned, errors.New(why), nil
	}
	return Confirmed, nil, nil
}

// refused decides about a message that the broker has nacked. It ends the session if the broker has
// accepted nothing on this route since the session began; see renewAfter.
func (p *Publisher) refused(pending *Pending) (Outcome, error, error) {
	if !p.accepted[pending.route] && time.Since(p.opened) > p.renewAfter {
		p.end(fmt.Errorf("%w: %w: %s", ErrClosed, errRefusedRoute, pending.route.key))
	}
	return Refused, errors.New("the broker refused the message (nack): a queue is full or failing"),
		nil
}

// confirmTimedOut decides about a confirm that did not arrive in time. If later confirms arrived,
// the fault is that of the message; otherwise it is that of the session, which then ends.
func (p *Publisher) confirmTimedOut(pending *Pending) (Outcome, error, error) {
	if p.lastConfirm.After(pending.publishedAt) {
		return Refused, fmt.Errorf("no confirm within %s", confirmTimeout), nil
	}
	p.end(fmt.Errorf("%w: no confirm within %s", ErrClosed, confirmTimeout))
	return Unknown, p.Err(), nil
}

func (p *Publisher) drainReturns() {
	for {
		select {
		case r, ok := <-p.returns:
			if !ok {
				return
			}
			p.returned[r.MessageId] = fmt.Sprintf("unroutable (%d %s): no queue is bound to %s for %s",
				r.ReplyCode, r.ReplyText, r.Exchange, r.RoutingKey)
		default:
			return
		}
	}
}

// closedReason returns the reason why the channel is closed. It waits for it, since another
// goroutine may still be about to set it.
func (p *Publisher) closedReason(cause error) error {
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		if cause == nil {
			cause = errors.New("its channel is closed")
		}
		p.end(fmt.Errorf("%w: %w", ErrClosed, cause))
	}
	return p.Err()
}

// checkSendable returns an error if a message does not fit the protocol. The driver would find some
// of these faults only after it has sent half of the message.
func checkSendable(m Message) error {
	if err := m.Headers.Validate(); err != nil {
		return err
	}
	for field, s := range map[string]string{
		"exchange": m.Exchange, "routing key": m.Key, "message-id": m.MessageId, "type": m.Type,
		"correlation-id": m.CorrelationId, "app-id": m.AppId, "content-type": m.ContentType,
		"content-encoding": m.ContentEncoding, "reply-to": m.ReplyTo, "expiration": m.Expiration,
		"user-id": m.UserId,
	} {
		if len(s) > maxShortString {
			return fmt.Errorf("%s of %d bytes is too long: at most %d are allowed", field, len(s),
				maxShortString)
		}
	}
	return checkHeaderNames(m.Headers)
}

func checkHeaderNames(headers amqp.Table) error {
	for key, value := range headers {
		if len(key) > maxShortString {
			return fmt.Errorf("header name of %d bytes is too long: at most %d are allowed", len(key),
				maxShortString)
		}
		if nested, ok := value.(amqp.Table); ok {
			if err := checkHeaderNames(nested); err != nil {
				return err
			}
		}
	}
	return nil
}
