package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// lane handles the deliveries of some subjects, a batch at a time: what has come in while one
// transaction ran is the next batch, so a lone event is never kept waiting.
type lane struct {
	*Consumer
	deliveries *rabbit.Deliveries
	in         chan amqp.Delivery
}

// item is a delivery that can be handled.
type item struct {
	delivery amqp.Delivery
	receipt  inbox.Receipt
	record   events.Record
	event    events.Event
}

func (l *lane) run(ctx context.Context) {
	for d := range l.in {
		batch := []amqp.Delivery{d}
		for more := true; more && len(batch) < l.bounds.BatchMax; {
			select {
			case d, ok := <-l.in:
				if more = ok; ok {
					batch = append(batch, d)
				}
			default:
				more = false
			}
		}
		// After the end of the session its deliveries come again in another; at shutdown they come
		// again elsewhere. Neither costs an attempt.
		if ctx.Err() != nil || l.deliveries.Err() != nil {
			continue
		}
		if l.process(ctx, batch) {
			if err := l.deliveries.Ack(batch...); err != nil {
				l.Log.Debug().Err(err).Msg("acknowledge") // the events come again and are duplicates
			}
		}
	}
}

// process sees to it that every delivery has taken effect, waits in pending, or is parked. It
// returns false when the session or the process ends first; then nothing may be acknowledged.
func (l *lane) process(ctx context.Context, batch []amqp.Delivery) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the batch
		select {
		case <-l.deliveries.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	var all []item
	for _, r := range l.decoder.batch(ctx, batch) {
		if r.err == nil {
			all = append(all, r.item)
		} else if !l.keeper.park(ctx, r.item.delivery, r.item.record, r.err) {
			return false
		}
	}
	for len(all) > 0 {
		var together []item
		together, all = l.apartByID(all)
		if !l.handle(ctx, together) {
			return false
		}
	}
	return true
}

// apartByID returns one event for each id, in order, and the others with the same ids:
// the inbox decides which of those are duplicates and which are clashes.
func (c *Consumer) apartByID(all []item) (together, others []item) {
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
			c.stats.duplicates.Add(1)
		}
	}
	return together, others
}

// handle brings a batch to its end, whatever it takes.
func (c *Consumer) handle(ctx context.Context, batch []item) bool {
	for reruns, probes := 0, 0; ctx.Err() == nil; reruns++ {
		err := c.transact(ctx, batch)
		if err == nil {
			return true
		}
		if hung, others := apart(batch, err); len(hung) > 0 && len(others) > 0 {
			// The others need not wait that long once more.
			return c.keeper.store(ctx, hung, err, delay) && c.handle(ctx, others)
		}
		alive := pg.ClassOf(err) == pg.Retry || pg.Alive(ctx, c.DB) == nil
		switch verdict := c.handlers.retryOf(batch[0].receipt.Type).dispose(err, len(batch), reruns, 0,
			alive); verdict {
		case rerun:
			sleep(ctx, jitter(rerunPause))
		case waitForDatabase:
			if probes == 0 {
				c.Log.Warn().Err(err).Msg("database is away, consumption pauses")
			}
			sleep(ctx, outagePause(probes))
			probes++
			reruns--
		case split:
			for i := range batch {
				if !c.handle(ctx, batch[i:i+1]) {
					return false
				}
			}
			return true
		case postpone, delay, park:
			return c.keeper.store(ctx, batch, err, verdict)
		}
	}
	return false
}

// transact handles a batch in one transaction: inbox, reactions, outbox. Events that took effect
// before are skipped. Events whose handler is a Call, and those that only another release handles,
// are only written as due here, since a call must delay neither a transaction nor a lane. A
// shutdown does not interrupt the transaction; only HandlerTimeout does.
func (c *Consumer) transact(ctx context.Context, batch []item) error {
	var accepted accepted
	var put int // into pending
	err := c.work.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if accepted, err = c.keeper.accept(ctx, tx, batch); err != nil {
			return err
		}
		var todo []events.Event
		var waiting []inbox.Pending
		for _, it := range accepted.fresh {
			if c.handlers.reacts(it.receipt.Type) {
				todo = append(todo, it.event)
			} else {
				waiting = append(waiting, it.pending(c.handlers.waitsAs(it.receipt.Type)))
			}
		}
		put = len(waiting)
		if err := c.Inbox.Enqueue(ctx, tx, waiting...); err != nil || len(todo) == 0 {
			return err
		}
		return c.work.reactAndWrite(ctx, tx, todo)
	})
	if err != nil {
		return err
	}
	c.Outbox.Nudge()
	if put > 0 {
		c.work.hurryCalls()
	}
	c.stats.batches.Add(1)
	c.stats.handled.Add(int64(len(accepted.fresh) - put))
	c.keeper.noteAccepted(accepted, len(batch))
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

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) { sleepUntil(ctx, d, nil) }

// sleepUntil is sleep that a nudge ends.
func sleepUntil(ctx context.Context, d time.Duration, nudge <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-nudge:
	case <-ctx.Done():
	}
}
