package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// MaxInFlight is how many publishings may await their confirm at once.
const MaxInFlight = 1000

// confirmTimeout is how long a confirm may take. It is above the heartbeat, so that a dead
// connection is noticed as such first.
const confirmTimeout = 30 * time.Second

// Message is something to publish.
type Message struct {
	Exchange  string
	Key       string
	Mandatory bool // somebody must be bound: a message that no queue takes comes back
	amqp.Publishing
}

// Outcome is what became of a publishing.
type Outcome int

const (
	Unknown    Outcome = iota // the session ended first: publish it again with the same id
	Confirmed                 // every queue that it was routed to has it
	Refused                   // nacked, or not confirmed in time; see the reason
	Returned                  // no queue is bound for it, though somebody must be; see the reason
	Unsendable                // it does not fit the protocol and was never sent; see the reason
)

// Publisher publishes on a session in confirm mode. It is for one goroutine.
type Publisher struct {
	*Session
	returns   chan amqp.Return
	returned  map[string]string // message id → why it came back
	inFlight  int
	confirmed time.Time // when the last confirm was seen
	blocked   atomic.Bool
}

// Pending is a publishing that awaits its confirm.
type Pending struct {
	id      string
	at      time.Time
	confirm *amqp.DeferredConfirmation
	refused error // it was never sent
}

// NewPublisher puts the session into confirm mode and takes it over.
func NewPublisher(s *Session) (*Publisher, error) {
	if err := s.call(func() error { return s.ch.Confirm(false) }); err != nil {
		return nil, fmt.Errorf("enter confirm mode: %w", err)
	}
	p := &Publisher{Session: s, returned: map[string]string{}}
	// Every message in flight may come back, and the driver drops a notification that nobody takes:
	// with room for all of them, and for those that Wait has given up, none can be lost.
	p.returns = s.ch.NotifyReturn(make(chan amqp.Return, 2*MaxInFlight))
	blocked := s.conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	go func() {
		for b := range blocked { // the driver closes it with the connection
			p.blocked.Store(b.Active)
		}
	}()
	return p, nil
}

// Blocked tells whether the broker has asked not to be published to (a memory or disk alarm).
func (p *Publisher) Blocked() bool { return p.blocked.Load() }

// Publish sends a batch in one write and returns one Pending for each message, in their order. It
// does not wait for confirms. It fails only when the session is over or the batch exceeds the room
// that is left of MaxInFlight; then nothing is known about any of them.
func (p *Publisher) Publish(batch []Message) ([]*Pending, error) {
	if p.inFlight+len(batch) > MaxInFlight {
		return nil, fmt.Errorf("publish: %d in flight and %d more exceed %d", p.inFlight, len(batch),
			MaxInFlight)
	}
	p.socket.cork()
	pendings := make([]*Pending, len(batch))
	now := time.Now()
	for i, m := range batch {
		pendings[i] = &Pending{id: m.MessageId, at: now}
		if err := sendable(m); err != nil {
			pendings[i].refused = err
			continue
		}
		// Whatever fails now is the session's fault, also while the driver does not count the channel as
		// closed yet: a message that can be sent must not be blamed for a line that breaks.
		confirm, err := p.ch.PublishWithDeferredConfirm(m.Exchange, m.Key, m.Mandatory, false,
			m.Publishing)
		if err != nil {
			_ = p.socket.uncork()
			return nil, p.over(err)
		}
		pendings[i].confirm = confirm
		p.inFlight++
	}
	if err := p.socket.uncork(); err != nil {
		return nil, p.over(err)
	}
	return pendings, nil
}

// Wait returns what became of a publishing, and unless it was Confirmed why. Only a cancelled ctx
// is an error.
func (p *Publisher) Wait(ctx context.Context, pending *Pending) (Outcome, error, error) {
	if pending.refused != nil {
		return Unsendable, pending.refused, nil
	}
	select {
	case <-pending.confirm.Done():
	default:
		timer := time.NewTimer(time.Until(pending.at.Add(confirmTimeout)))
		defer timer.Stop()
		select {
		case <-pending.confirm.Done():
		case <-timer.C:
			p.inFlight--
			return p.late(pending)
		case <-ctx.Done():
			return Unknown, nil, ctx.Err()
		}
	}
	p.inFlight--
	if !pending.confirm.Acked() {
		// The driver also says "not acked" of all that was in flight when a channel closed, and it
		// marks the channel as closed first.
		if p.ch.IsClosed() || p.Err() != nil {
			return Unknown, p.over(nil), nil
		}
		return Refused, errors.New("the broker refused it (nack): a queue is full or failing"), nil
	}
	p.confirmed = time.Now()
	// One goroutine of the driver dispatches returns and confirms in the order in which they came,
	// and the broker returns before it confirms: a return of this message is in the channel by now.
	p.drainReturns()
	if why, ok := p.returned[pending.id]; ok {
		delete(p.returned, pending.id)
		return Returned, errors.New(why), nil
	}
	return Confirmed, nil, nil
}

// late judges a confirm that did not come: when others did, this message is in trouble; when none
// did, the session is.
func (p *Publisher) late(pending *Pending) (Outcome, error, error) {
	if p.confirmed.After(pending.at) {
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

// over waits for the reason of a channel that is closed, which another goroutine is about to note.
func (p *Publisher) over(cause error) error {
	timer := time.NewTimer(closePatience)
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

// sendable refuses what does not fit the protocol, some of which the driver would find out only
// after it has sent half a message.
func sendable(m Message) error {
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
			return fmt.Errorf("%s of %d bytes, at most %d", field, len(s), maxShortString)
		}
	}
	return checkHeaderNames(m.Headers)
}

func checkHeaderNames(headers amqp.Table) error {
	for key, value := range headers {
		if len(key) > maxShortString {
			return fmt.Errorf("header name of %d bytes, at most %d", len(key), maxShortString)
		}
		if nested, ok := value.(amqp.Table); ok {
			if err := checkHeaderNames(nested); err != nil {
				return err
			}
		}
	}
	return nil
}
