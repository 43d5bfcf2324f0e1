package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// errClash is the error of an event whose id was used for a different event before.
var errClash = errors.New("another event came before under the same id, with another type or " +
	"other data: its producer must give each event an id of its own")

// park parks a message that cannot be handled as an event, under a hash of the message. It
// writes no inbox row, so that the message does not use up the id of an event. It returns false
// when the process or the session ends first.
func (k *keeper) park(ctx context.Context, d amqp.Delivery, record events.Record,
	why error) bool {
	for probes := 0; ctx.Err() == nil; probes++ {
		var kept bool
		err := k.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
			kept, err = k.parkIn(ctx, tx, d, record, why)
			return err
		})
		if err == nil {
			k.noteParked(d, record, why, kept)
			return true
		}
		if probes == 0 {
			k.log.Warn().Err(err).Msg("cannot park, trying again")
		}
		sleep(ctx, outagePause(probes))
	}
	return false
}

// parkIn is park in a transaction. It reports whether the message is kept.
func (k *keeper) parkIn(ctx context.Context, tx *sqlx.Tx, d amqp.Delivery, record events.Record,
	why error) (kept bool, err error) {
	p := pendingOf(d, record)
	p.Kind, p.Owner, p.Key, p.Reason = inbox.Evidence, d.Exchange, hashOf(d), why.Error()
	if isForeign(why) {
		return k.inbox.ParkMalformed(ctx, tx, p, k.handlers.bounds.Malformed)
	}
	return true, k.inbox.Add(ctx, tx, p, 0, true)
}

// isForeign reports whether another program may send any number of messages with this fault. Other
// faults are those of this choreography, or of another release.
func isForeign(why error) bool {
	return errors.Is(why, events.ErrMalformed) || errors.Is(why, errForged) ||
		errors.Is(why, errClash) || errors.Is(why, errStray)
}

func (k *keeper) noteParked(d amqp.Delivery, record events.Record, why error, kept bool) {
	if kept {
		p := pendingOf(d, record)
		p.Key, p.Reason = hashOf(d), why.Error()
		k.note(p, true)
		return
	}
	if n := k.stats.dropped.Add(1); n&(n-1) == 0 { // not a line for each
		bounds := k.handlers.bounds.Malformed
		k.log.Error().Str("exchange", d.Exchange).Int64("dropped", n).Str("reason",
			firstLine(why.Error())).
			Msgf("more than %d malformed messages or %d bytes of one exchange are parked: further ones "+
				"are counted and not kept", bounds.Messages, bounds.Bytes)
	}
}

// hashOf names what came by its bytes: the same thing sent twice is parked once.
func hashOf(d amqp.Delivery) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q ", d.Exchange, d.RoutingKey, d.MessageId, d.Type, d.ContentType)
	for _, key := range slices.Sorted(maps.Keys(d.Headers)) {
		// The headers of the broker change with each delivery, and the span with each publication.
		if strings.HasPrefix(key, "x-") || key == "traceparent" {
			continue
		}
		fmt.Fprintf(h, "%q=%q ", key, fmt.Sprint(d.Headers[key]))
	}
	h.Write(d.Body)
	return inbox.MalformedKey + hex.EncodeToString(h.Sum(nil)[:16])
}

// errDead is the reason of a message whose delivery the broker has given up.
var errDead = errors.New("dead-lettered by the broker")

// errStray is the reason of a dead letter that is no event of this topology; another program may
// have sent it.
var errStray = errors.New("and no event")

// dead returns a dead letter as far as it can be read, and the reason why it is parked. A dead
// letter may be the only copy of an event, so the bounds of malformed messages do not apply to
// events.
func (r *decoder) dead(d amqp.Delivery) (record events.Record, why error) {
	why = fmt.Errorf("%w: %v", errDead, d.Headers["x-first-death-reason"])
	record, err := rabbit.Record(d)
	if err == nil {
		exchange, _ := d.Headers["x-first-death-exchange"].(string)
		_, err = r.verifySource(exchange, record)
	}
	if err == nil {
		_, err = events.ParseID(record.ID)
	}
	if err != nil {
		why = fmt.Errorf("%w, %w: %w", why, errStray, err)
	}
	return record, why
}
