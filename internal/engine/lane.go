package engine

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// lane handles the deliveries of some subjects, a batch at a time: what has come in while one
// transaction ran is the next batch, so a lone event is never kept waiting.
type lane struct {
	batches    *batches
	deliveries *rabbit.Deliveries
	in         chan arrival
}

// arrival is a delivery and when it was read.
type arrival struct {
	amqp.Delivery
	at time.Time
}

// item is a delivery that can be handled.
type item struct {
	delivery amqp.Delivery
	receipt  inbox.Receipt
	record   events.Record
	event    events.Event
}

func (l *lane) run(ctx context.Context) {
	for a := range l.in {
		batch, since := []amqp.Delivery{a.Delivery}, []time.Time{a.at}
		for more := true; more && len(batch) < l.batches.handlers.bounds.BatchMax; {
			select {
			case a, ok := <-l.in:
				if more = ok; ok {
					batch, since = append(batch, a.Delivery), append(since, a.at)
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
		if l.batches.process(ctx, l.deliveries.Done(), batch) {
			for _, at := range since {
				l.batches.stats.handling.Observe(time.Since(at))
			}
			if err := l.deliveries.Ack(batch...); err != nil {
				l.batches.log.Debug().Err(err).Msg("acknowledge") // the events come again and are duplicates
			}
		}
	}
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
