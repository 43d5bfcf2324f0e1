package engine

import (
	"context"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// batches brings batches of deliveries to their end. It is safe for concurrent use: each lane has a
// batch of its own at a time.
type batches struct {
	*transactor
	decoder *decoder
	keeper  *keeper
}

// process sees to it that every delivery has taken effect, waits in pending, or is parked. It
// returns false when the session or the process ends first; then nothing may be acknowledged.
func (b *batches) process(ctx context.Context, session <-chan struct{},
	batch []amqp.Delivery) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the batch
		select {
		case <-session:
			cancel()
		case <-ctx.Done():
		}
	}()
	var all []item
	for _, r := range b.decoder.batch(ctx, batch) {
		if r.err == nil {
			all = append(all, r.item)
			continue
		}
		b.markParked(r.item, r.err)
		if !b.keeper.park(ctx, r.item.delivery, r.item.record, r.err) {
			return false
		}
	}
	for len(all) > 0 {
		var together []item
		together, all = b.apartByID(all)
		if !b.handle(ctx, together) {
			return false
		}
	}
	return true
}

// apartByID returns one event for each id, in order, and the others with the same ids:
// the inbox decides which of those are duplicates and which are clashes.
func (b *batches) apartByID(all []item) (together, others []item) {
	first := map[inbox.Name]inbox.Receipt{}
	for _, it := range all {
		name := inbox.Name{Owner: it.receipt.Owner, Key: it.receipt.ID}
		switch known, again := first[name]; {
		case !again:
			first[name] = it.receipt
			together = append(together, it)
		case known != it.receipt:
			others = append(others, it)
		default:
			b.stats.event(it.receipt.Type, eventDuplicate)
		}
	}
	return together, others
}

// handle brings a batch to its end.
func (b *batches) handle(ctx context.Context, batch []item) bool {
	for reruns, probes := 0, 0; ctx.Err() == nil; reruns++ {
		err := b.transact(ctx, batch)
		if err == nil {
			return true
		}
		if hung, others := apart(batch, err); len(hung) > 0 && len(others) > 0 {
			// The others need not wait that long once more.
			return b.keeper.store(ctx, hung, err, delay) && b.handle(ctx, others)
		}
		alive := pg.ClassOf(err) == pg.Retry || pg.Alive(ctx, b.db) == nil
		switch verdict := b.handlers.retryOf(batch[0].receipt.Type).dispose(err, len(batch), reruns, 0,
			alive); verdict {
		case rerun:
			sleep(ctx, jitter(rerunPause))
		case waitForDatabase:
			if probes == 0 {
				b.log.Warn().Err(err).Msg("database is away, consumption pauses")
			}
			sleep(ctx, outagePause(probes))
			probes++
			reruns--
		case split:
			for i := range batch {
				if !b.handle(ctx, batch[i:i+1]) {
					return false
				}
			}
			return true
		case postpone, delay, park:
			return b.keeper.store(ctx, batch, err, verdict)
		}
	}
	return false
}

// transact handles a batch in one transaction: inbox, reactions, outbox. Events that took effect
// before are skipped. Events whose handler is a Call, and those that only another release handles,
// are only written as due here, since a call must delay neither a transaction nor a lane. A
// shutdown does not interrupt the transaction; only HandlerTimeout does.
func (b *batches) transact(ctx context.Context, batch []item) error {
	var accepted accepted
	var put int // into pending
	err := b.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if accepted, err = b.keeper.accept(ctx, tx, batch); err != nil {
			return err
		}
		var todo []events.Event
		var waiting []inbox.Pending
		var exchanges []string // of todo
		for _, it := range accepted.fresh {
			if b.handlers.reacts(it.receipt.Type) {
				todo, exchanges = append(todo, it.event), append(exchanges, it.delivery.Exchange)
			} else {
				waiting = append(waiting, it.pending(b.handlers.waitsAs(it.receipt.Type)))
			}
		}
		put = len(waiting)
		if err := b.inbox.Enqueue(ctx, tx, waiting...); err != nil || len(todo) == 0 {
			return err
		}
		return b.reactAndWrite(ctx, tx, todo, func(i int) string { return exchanges[i] })
	})
	if err != nil {
		return err
	}
	b.outbox.Nudge()
	if put > 0 {
		b.hurryCalls()
	}
	b.stats.batches.Add(1)
	for _, it := range accepted.fresh {
		if b.handlers.reacts(it.receipt.Type) {
			b.stats.event(it.receipt.Type, eventHandled)
			b.stats.lag.Observe(time.Since(it.event.Time))
			b.logHandled(it.event)
		}
	}
	b.keeper.noteAccepted(accepted)
	return nil
}

// apart takes the events out of a batch whose handler hangs.
func apart(batch []item, err error) (hung, others []item) {
	h, ok := errors.AsType[hungError](err)
	for _, it := range batch {
		if ok && it.event.ID == h.key {
			hung = append(hung, it)
		} else {
			others = append(others, it)
		}
	}
	return hung, others
}
