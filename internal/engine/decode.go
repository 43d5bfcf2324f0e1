package engine

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// errForged is the error of an event from an exchange to which its source does not publish.
var errForged = fmt.Errorf("forged")

// decoder turns deliveries and what waited into events. It is safe for concurrent use.
type decoder struct {
	handlers *handlers
	hanging  *hanging
	log      zerolog.Logger
	unknown  sync.Map // types that came and have no handler here
}

// delivery turns a delivery into an event. The exchange proves the source, since only its
// owner may publish there; another source is refused as forged. An event without a handler here has
// no Data.
func (r *decoder) delivery(d amqp.Delivery) (item, error) {
	record, err := rabbit.Record(d)
	if y := record.Time.UTC().Year(); y < 1 || y > lastYear {
		record.Time = time.Time{} // it cannot be written as RFC 3339
	}
	it := item{delivery: d, record: record}
	if err != nil {
		return it, err
	}
	owner, err := r.verifySource(d.Exchange, record)
	switch {
	case err != nil:
		return it, err
	case record.Type != d.RoutingKey:
		return it, fmt.Errorf("%w: %.80q travels under the key %.80q", errForged, record.Type,
			d.RoutingKey)
	case r.handlers.of[record.Type] == nil:
		return r.keepUnknown(it, owner)
	}
	if err := r.hanging.check(checksOf(record.Type)); err != nil {
		return it, err
	}
	if it.event, err = r.open(record, owner); err != nil {
		return it, err
	}
	if it.event.Time.IsZero() {
		it.event.Time = time.Now().UTC()
	}
	it.receipt = receiptOf(it, owner)
	return it, nil
}

// verifySource returns the service that owns the exchange through which an event came, and refuses
// what that service does not publish.
func (r *decoder) verifySource(exchange string, record events.Record) (owner string, err error) {
	owner, ok := topology.OwnerOf(exchange)
	publisher, known := r.handlers.topology.Service(owner)
	switch {
	case !ok || !known:
		return "", fmt.Errorf("%w: exchange %.80q belongs to no service of %s", errForged, exchange,
			r.handlers.topology.Name)
	case !slices.Contains(publisher.Publishes(), record.Type):
		return "", fmt.Errorf("%w: %s does not publish %.80q", errForged, owner, record.Type)
	case record.Source != "" && record.Source != topology.SourceOf(owner):
		return "", fmt.Errorf("%w: it came through %s and claims to be from %.80q", errForged, exchange,
			record.Source)
	}
	return owner, nil
}

func receiptOf(it item, owner string) inbox.Receipt {
	return inbox.Receipt{Owner: owner, ID: it.event.ID, Type: it.record.Type,
		Content: inbox.ContentOf(it.record.Data)}
}

// batch reads a batch. The code of a payload, such as Validate, may neither hang nor end the
// lane.
func (r *decoder) batch(ctx context.Context, list []amqp.Delivery) (all []decoded) {
	for len(all) < len(list) {
		rest := list[len(all):]
		read := make(chan decoded, len(rest))
		_, err := guard(context.WithoutCancel(ctx), r.hanging, r.handlers.bounds.HandlerTimeout,
			func(ctx context.Context) (struct{}, error) {
				for _, d := range rest {
					ended := watched(ctx, d.MessageId, checksOf(d.RoutingKey))
					it, err := r.delivery(d)
					ended()
					read <- decoded{it, err}
				}
				return struct{}{}, nil
			})
		for range len(read) {
			all = append(all, <-read)
		}
		if err != nil && len(all) < len(list) {
			record, _ := rabbit.Record(list[len(all)])
			all = append(all, decoded{item{delivery: list[len(all)], record: record},
				fmt.Errorf("decode: %w", err)})
		}
	}
	return all
}

// checksOf names the code of a type's payload, such as Validate, among what may hang. It is not the
// handler: that of one event may go on while those checks hang for another.
func checksOf(eventType string) string { return "checks of " + eventType }

// decoded is a delivery that was read, or why it cannot be.
type decoded struct {
	item
	err error
}

// lastYear is the last one that RFC 3339 can write.
const lastYear = 9999

// keepUnknown makes an item of an event without a handler here. The queue is bound to its type, so
// a later or an earlier release of this service handles it: it waits for a replica of that release.
func (r *decoder) keepUnknown(it item, owner string) (item, error) {
	id, err := events.ParseID(it.record.ID)
	if err != nil {
		return it, fmt.Errorf("%w: %w", events.ErrMalformed, err)
	}
	it.event.ID = id
	it.receipt = receiptOf(it, owner)
	if _, reported := r.unknown.LoadOrStore(it.record.Type, true); !reported {
		r.log.Warn().Str("type", it.record.Type).Msg(
			"nobody here reacts to it: it is kept for a replica that does")
	}
	return it, nil
}

// open decodes an event of an owner. A payload may panic in its own Validate; that is a fault of
// this event only.
func (r *decoder) open(record events.Record, owner string) (e events.Event, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("open %.80q: panic: %v\n%s", record.Type, cause, debug.Stack())
		}
	}()
	e, err = r.handlers.catalogue.Open(record)
	e.Source = topology.SourceOf(owner)
	return e, err
}

// pending decodes what waited. A request keeps its id, which is the idempotency key of its
// call. A deadline is a command: it has no id, and its time is now.
func (r *decoder) pending(p inbox.Pending) (events.Event, error) {
	record := p.Record()
	if p.Exchange != "" {
		// A message that was parked as forged is still forged now.
		owner, err := r.verifySource(p.Exchange, record)
		if err != nil {
			return events.Event{}, Permanent(err)
		}
		e, err := r.open(record, owner)
		if err == nil && e.Time.IsZero() {
			e.Time = p.CreatedAt.UTC()
		}
		return e, err
	}
	payload, err := r.handlers.catalogue.Payload(record)
	if err != nil {
		return events.Event{}, err
	}
	if p.Kind == inbox.Call {
		source := topology.SourceOf(r.handlers.service.Name)
		return events.Event{ID: p.Key, Source: source, Time: p.CreatedAt.UTC(),
			CorrelationID: record.CorrelationID, CausationID: record.CausationID,
			TraceParent: record.TraceParent, Data: payload}, nil
	}
	if r.handlers.isCall(p.Type) {
		return events.Event{}, Permanent(fmt.Errorf("the deadline %s has no id to call with, and its "+
			"handler is a Call: let a reaction request the call", p.Type))
	}
	e := events.Command(payload, time.Now())
	e.CorrelationID, e.TraceParent = record.CorrelationID, record.TraceParent
	return e, nil
}
