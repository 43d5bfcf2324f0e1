package engine

import (
	"cmp"
	"context"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

// keeper keeps what is not handled now: events that wait for their next attempt, and what is parked
// for a person. It is safe for concurrent use.
type keeper struct {
	*transactor
}

// store is storeOnce until it succeeds. It returns false when the process or the
// session ends first.
func (k *keeper) store(ctx context.Context, batch []item, why error,
	verdict disposition) bool {
	for probes := 0; ctx.Err() == nil; probes++ {
		err := k.storeOnce(ctx, batch, why, verdict)
		if err == nil {
			return true
		}
		if probes == 0 {
			k.log.Warn().Err(err).Msg("cannot store what failed, trying again")
		}
		sleep(ctx, outagePause(probes))
	}
	return false
}

// storeOnce writes the inbox rows of failed events and what waits of them, in one transaction; a
// later copy of each is then a duplicate.
func (k *keeper) storeOnce(ctx context.Context, batch []item, why error,
	verdict disposition) error {
	attempts, pause := 1, k.handlers.retryOf(batch[0].receipt.Type).Pause(1)
	patience := k.handlers.bounds.DatabasePatience
	if after, waits := retryPause(why, 0, patience); verdict == postpone && waits {
		attempts, pause = 0, after
	}
	var accepted accepted
	var noted []inbox.Pending
	err := k.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if accepted, err = k.accept(ctx, tx, batch); err != nil {
			return err
		}
		for _, it := range accepted.fresh {
			p := it.pending(inbox.Retry)
			p.Attempts, p.Reason = attempts, why.Error()
			if err := k.inbox.Add(ctx, tx, p, pause, verdict == park); err != nil {
				return err
			}
			noted = append(noted, p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.noteAccepted(accepted)
	for _, p := range noted {
		k.note(p, verdict == park)
	}
	return nil
}

// accepted is what became of a batch in the inbox.
type accepted struct {
	fresh   []item
	clashes []item // something else came before under their ids
	kept    int    // of the clashes, parked
	old     []item // parked, since their receipts may have been deleted
	known   []item // duplicates
}

// accept writes the inbox rows of a batch, and parks what came under the id of another event and
// what is so old that its receipt may have been deleted.
func (k *keeper) accept(ctx context.Context, tx *sqlx.Tx, batch []item) (a accepted, err error) {
	receipts := make([]inbox.Receipt, len(batch))
	for i, it := range batch {
		receipts[i] = it.receipt
	}
	fresh, err := k.inbox.Accept(ctx, tx, receipts...)
	if err != nil {
		return a, err
	}
	clashes := map[inbox.Receipt]bool{}
	if len(fresh) < len(batch) {
		if clashes, err = k.inbox.Clashes(ctx, tx, receipts...); err != nil {
			return a, err
		}
	}
	for _, it := range batch {
		switch {
		case fresh[it.receipt] && k.old(it):
			a.old = append(a.old, it)
			p := it.pending(inbox.Retry)
			p.Reason = errOld.Error()
			if err := k.inbox.Add(ctx, tx, p, 0, true); err != nil {
				return a, err
			}
		case fresh[it.receipt]:
			a.fresh = append(a.fresh, it)
		case clashes[it.receipt]:
			a.clashes = append(a.clashes, it)
			kept, err := k.parkIn(ctx, tx, it.delivery, it.record, errClash)
			if err != nil {
				return a, err
			}
			if kept {
				a.kept++
			}
		default:
			a.known = append(a.known, it)
		}
	}
	return a, nil
}

// noteAccepted counts what was committed of a batch.
func (k *keeper) noteAccepted(a accepted) {
	for _, it := range a.known {
		k.stats.event(it.receipt.Type, eventDuplicate)
	}
	for _, it := range a.old {
		p := it.pending(inbox.Retry)
		p.Reason = errOld.Error()
		k.note(p, true)
	}
	for i, it := range a.clashes {
		k.noteParked(it.delivery, it.record, errClash, i < a.kept)
	}
}

// reschedule sets what waited and has failed again for its next attempt, or parks it.
func (k *keeper) reschedule(ctx context.Context, tx *sqlx.Tx, p inbox.Pending,
	failed error) error {
	age := time.Duration(p.Age * float64(time.Second))
	next := k.handlers.retryOf(p.Type).again(failed, p.Attempts, age, k.handlers.bounds)
	p.Reason = failed.Error()
	if next.spent {
		p.Attempts++
	}
	done, err := k.inbox.Reschedule(ctx, tx, p, next.after, next.parked)
	switch {
	case !done:
	case next.spent:
		k.note(p, next.parked)
	default:
		k.stats.event(p.Type, eventDelayed)
	}
	return err
}

func (k *keeper) note(p inbox.Pending, parked bool) {
	log := k.log.Warn().EmbedObject(aboutPending(p)).Int("attempt", p.Attempts).Str("reason",
		firstLine(p.Reason))
	if parked {
		k.stats.event(p.Type, eventParked)
		log.Msg("event parked")
		return
	}
	k.stats.event(p.Type, eventDelayed)
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

// pending returns the row under which an event waits.
func (it item) pending(kind inbox.Kind) inbox.Pending {
	p := pendingOf(it.delivery, it.record)
	p.Kind = kind
	p.Owner, p.Key = it.receipt.Owner, it.event.ID
	return p
}

// defaultExchange stands for the exchange without a name, through which no service may publish.
const defaultExchange = "(default)"

func pendingOf(d amqp.Delivery, record events.Record) inbox.Pending {
	if record.Type == "" {
		record.Type = d.Type
	}
	// The default exchange has no name; but what waits without an exchange is a deadline, which is
	// believed.
	exchange := cmp.Or(d.Exchange, defaultExchange)
	return inbox.Pending{
		Type: record.Type, Exchange: exchange, RoutingKey: d.RoutingKey,
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
