package consumer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/inbox"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// errForged says that an event came by a way that its source cannot have used.
var errForged = fmt.Errorf("forged")

// read turns a delivery into an event. The exchange vouches for the source, since only its owner may
// write there; what does not fit is refused as forged. An event that nobody here reacts to has no Data.
func (c *Consumer) read(d amqp.Delivery) (item, error) {
	record, err := rabbit.Record(d)
	if y := record.Time.Year(); y < 1 || y > lastYear {
		record.Time = time.Time{} // as good as none
	}
	it := item{delivery: d, record: record}
	if err != nil {
		return it, err
	}
	owner, ok := topology.OwnerOf(d.Exchange)
	publisher, known := c.Topology.Service(owner)
	switch {
	case !ok || !known:
		return it, fmt.Errorf("%w: exchange %.80q belongs to no service of %s", errForged, d.Exchange, c.Topology.Name)
	case record.Type != d.RoutingKey:
		return it, fmt.Errorf("%w: %.80q travels under the key %.80q", errForged, record.Type, d.RoutingKey)
	case !slices.Contains(publisher.Publishes(), record.Type):
		return it, fmt.Errorf("%w: %s does not say %.80q", errForged, owner, record.Type)
	case record.Source != "" && record.Source != topology.SourceOf(owner):
		return it, fmt.Errorf("%w: it came through %s and claims to be from %.80q", errForged, d.Exchange, record.Source)
	case c.handlerOf[record.Type] == nil:
		return c.keep(it, owner)
	}
	if it.event, err = c.open(record, owner); err != nil {
		return it, err
	}
	if it.event.Time.IsZero() {
		it.event.Time = time.Now().UTC()
	}
	it.receipt = inbox.Receipt{Owner: owner, ID: it.event.ID, Type: record.Type}
	return it, nil
}

// lastYear is the last one that RFC 3339 can write.
const lastYear = 9999

// keep makes an item of an event that nobody here reacts to. The queue is bound to it, so another release of
// this service does, the one to come or the one before: it waits for a replica that knows it.
func (c *Consumer) keep(it item, owner string) (item, error) {
	id, err := events.ParseID(it.record.ID)
	if err != nil {
		return it, fmt.Errorf("%w: %w", events.ErrMalformed, err)
	}
	it.event.ID, it.receipt = id, inbox.Receipt{Owner: owner, ID: id, Type: it.record.Type}
	if _, told := c.strange.LoadOrStore(it.record.Type, true); !told {
		c.Log.Warn().Str("type", it.record.Type).Msg("nobody here reacts to it: it is kept for a replica that does")
	}
	return it, nil
}

// open decodes an event of an owner. A payload may panic in its own Validate; that is a fault of this
// event only.
func (c *Consumer) open(record events.Record, owner string) (e events.Event, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("open %.80q: panic: %v\n%s", record.Type, cause, debug.Stack())
		}
	}()
	e, err = c.catalogue.Open(record)
	e.Source = topology.SourceOf(owner)
	return e, err
}

func cause(service string, e events.Event, p events.Payload) events.Event {
	return events.Cause(e, topology.SourceOf(service), time.Now(), p)
}

// putAside writes the inbox row of a failed event and what waits of it, in one transaction; a later
// copy of it is then a duplicate.
func (c *Consumer) putAside(ctx context.Context, it item, why error, park bool) error {
	p := it.pending()
	p.Attempts, p.Reason = 1, why.Error()
	var fresh map[inbox.Receipt]bool
	err := c.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		fresh, err = c.Inbox.Accept(ctx, tx, it.receipt)
		if err != nil || !fresh[it.receipt] {
			return err
		}
		return c.Inbox.Put(ctx, tx, p, pauseBefore(1), park)
	})
	switch {
	case err != nil:
	case fresh[it.receipt]:
		c.note(p, park)
	default: // another replica took it, or put it aside
		c.stats.duplicates.Add(1)
	}
	return err
}

// parkBad parks what is not an event that could be handled, under a hash of what came. It writes no
// inbox row: whoever sent it must not use up an id. It returns false when the process or the session
// ends first.
func (c *Consumer) parkBad(ctx context.Context, d amqp.Delivery, record events.Record, why error) bool {
	p := pendingOf(d, record)
	p.Owner, p.Key, p.Reason = d.Exchange, hashOf(d), why.Error()
	for probes := 0; ctx.Err() == nil; probes++ {
		err := c.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) error { return c.Inbox.Put(ctx, tx, p, 0, true) })
		if err == nil {
			c.note(p, true)
			return true
		}
		if probes == 0 {
			c.Log.Warn().Err(err).Msg("cannot park, trying again")
		}
		sleep(ctx, outagePause(probes))
	}
	return false
}

func (c *Consumer) inTx(ctx context.Context, f func(ctx context.Context, tx *sqlx.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	ctx = c.Context(ctx)
	return postgres.InTx(ctx, c.DB, func(tx *sqlx.Tx) (err error) {
		defer func() { // of a payload, a Table, a function Needs: the batch fails, not the process
			if cause := recover(); cause != nil {
				err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
			}
		}()
		return f(ctx, tx)
	})
}

func (c *Consumer) note(p inbox.Pending, parked bool) {
	log := c.Log.Warn().Str("id", p.Key).Str("type", p.Type).Int("attempts", p.Attempts).Str("reason", firstLine(p.Reason))
	if parked {
		c.stats.parked.Add(1)
		log.Msg("event parked")
		return
	}
	c.stats.delayed.Add(1)
	log.Msg("event failed, will be tried again")
}

func firstLine(s string) string {
	for i, r := range s {
		if r == '\n' {
			return s[:i]
		}
	}
	return s
}

func (it item) pending() inbox.Pending {
	p := pendingOf(it.delivery, it.record)
	p.Owner, p.Key = it.receipt.Owner, it.event.ID
	return p
}

func pendingOf(d amqp.Delivery, record events.Record) inbox.Pending {
	if record.Type == "" {
		record.Type = d.Type
	}
	return inbox.Pending{
		Type: record.Type, Exchange: d.Exchange, RoutingKey: d.RoutingKey,
		Attributes: inbox.EnvelopeOf(record), Body: bodyOf(d.Body),
	}
}

// bodyOf keeps an empty body from becoming NULL.
func bodyOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// hashOf names what came by its bytes: the same thing sent twice is parked once.
func hashOf(d amqp.Delivery) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q ", d.Exchange, d.RoutingKey, d.MessageId, d.Type, d.ContentType)
	for _, key := range slices.Sorted(maps.Keys(d.Headers)) {
		if strings.HasPrefix(key, "x-") { // the broker's own: they change with each delivery
			continue
		}
		fmt.Fprintf(h, "%q=%q ", key, fmt.Sprint(d.Headers[key]))
	}
	h.Write(d.Body)
	return "sha256:" + hex.EncodeToString(h.Sum(nil)[:16])
}

// consumeDead parks what the broker gave up to deliver. It is evidence only: the event may have taken
// effect, so nothing goes back from there.
func (c *Consumer) consumeDead(ctx context.Context) error {
	deliveries, err := c.subscribe(ctx, "dead", topology.DeadQueueOf(c.Name), deadPrefetch)
	if err != nil {
		return err
	}
	defer deliveries.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d, ok := <-deliveries.C():
			if !ok {
				return over(deliveries)
			}
			record, _ := rabbit.Record(d)
			d.Exchange, d.RoutingKey = "dead", record.Type
			why := fmt.Errorf("dead-lettered by the broker: %v", d.Headers["x-first-death-reason"])
			if !c.parkBad(ctx, d, record, why) {
				return ctx.Err()
			}
			if err := deliveries.Ack(d); err != nil {
				return err
			}
		}
	}
}
