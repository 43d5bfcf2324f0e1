package consumer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/inbox"
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of outside calls.
const (
	CallsAtOnce = 32               // of a replica
	CallTimeout = 10 * time.Second // of one call, below the time that a shutdown gives it
	callLease   = CallTimeout + 5*time.Second
)

// calls are the outside calls of a replica. What is due is claimed for as many as may be made,
// under a lease; each call runs by itself, with no transaction open; and what they returned is
// written down in batches: all that came in while the last was written.
type calls struct {
	*Consumer
	slots    chan struct{} // one for each call that may be under way
	returned chan called
	underway sync.WaitGroup
}

// called is what one call returned.
type called struct {
	inbox.Pending
	request events.Event
	answer  events.Payload // nil: there is none
	failed  error
}

// runCalls makes calls until ctx is done, and returns when those under way are written down.
func (c *Consumer) runCalls(ctx context.Context) {
	k := &calls{Consumer: c, slots: make(chan struct{}, CallsAtOnce),
		returned: make(chan called, CallsAtOnce)}
	var writing sync.WaitGroup
	writing.Go(func() { k.writeLoop(ctx) })
	c.runDue(ctx, c.callNudge, k.claim)
	k.underway.Wait()
	close(k.returned)
	writing.Wait()
}

// nudgeCalls hurries the claiming.
func (c *Consumer) nudgeCalls() {
	select {
	case c.callNudge <- struct{}{}:
	default:
	}
}

// claim starts calls for what is due, as many as there are slots. Should the process die, they are
// made again by whoever finds them once the lease is over.
func (k *calls) claim(ctx context.Context) (more bool, err error) {
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return false, nil
	}
	slots := 1
	for free := true; free; {
		select {
		case k.slots <- struct{}{}:
			slots++
		default:
			free = false
		}
	}
	var claimed []inbox.Pending
	err = k.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if claimed, err = k.Inbox.Claim(ctx, tx, slots, k.callTypes...); err != nil {
			return err
		}
		return k.Inbox.Lease(ctx, tx, callLease, claimed...)
	})
	if err != nil {
		claimed = nil
	}
	for range slots - len(claimed) {
		<-k.slots
	}
	for _, p := range claimed {
		k.underway.Go(func() { k.returned <- k.make(ctx, p) })
	}
	return len(claimed) == slots, err
}

// make makes one call. Once begun it is not interrupted by a shutdown, only by its bound. A panic
// in it, or a hang, is a failure of this call.
func (k *calls) make(ctx context.Context, p inbox.Pending) called {
	if err := k.hanging.check(p.Type); err != nil {
		return called{Pending: p, failed: outsideError{RetryAfter(err, CallTimeout)}}
	}
	r, err := guard(context.WithoutCancel(ctx), k.Consumer, CallTimeout,
		func(ctx context.Context) (r called, err error) {
			defer watched(ctx, p.Key, p.Type)()
			if r.request, err = k.decodePending(p); err != nil {
				return r, err
			}
			call := k.handlerOf[p.Type].call
			if r.answer, err = call(withCause(ctx, r.request), r.request); err != nil {
				// Whatever it looks like, it is not an error of the database.
				err = outsideError{err}
			}
			return r, err
		})
	if h, hung := errors.AsType[hungError](err); hung {
		err = outsideError{h}
	}
	r.Pending, r.failed = p, err
	return r
}

// writeLoop writes down what calls return, until there are none.
func (k *calls) writeLoop(ctx context.Context) {
	for r := range k.returned {
		batch := []called{r}
		for more := true; more; {
			select {
			case r, ok := <-k.returned:
				if more = ok; ok {
					batch = append(batch, r)
				}
			default:
				more = false
			}
		}
		if err := k.write(ctx, batch); err != nil {
			for _, r := range batch {
				k.writeOne(ctx, r)
			}
		}
		for range batch {
			<-k.slots
		}
	}
}

// write records what calls have returned, in one transaction: answers with their effects, and
// failures with their next attempt. What another replica has recorded since the lease was over has
// no effect again.
func (k *calls) write(ctx context.Context, batch []called) error {
	var recorded int
	err := k.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		answers := make([]inbox.Answer, 0, len(batch))
		for _, r := range batch {
			if r.failed != nil {
				if err := k.reschedule(ctx, tx, r.Pending, r.failed); err != nil {
					return err
				}
				continue
			}
			answer, err := answerOf(r)
			if err != nil {
				return err
			}
			answers = append(answers, answer)
		}
		done, err := k.Inbox.Answer(ctx, tx, answers...)
		if err != nil {
			return err
		}
		recorded = len(done)
		return k.handleAnswers(ctx, tx, slices.DeleteFunc(slices.Clone(batch), func(r called) bool {
			return r.answer == nil || r.failed != nil || !done[inbox.Name{Owner: r.Owner, Key: r.Key}]
		}))
	})
	if err == nil {
		k.stats.handled.Add(int64(recorded))
		k.Outbox.Nudge()
	}
	return err
}

// answerOf returns what the history of calls keeps.
func answerOf(r called) (inbox.Answer, error) {
	a := inbox.Answer{Pending: r.Pending}
	if r.answer == nil {
		return a, nil
	}
	data, err := events.Encode(r.answer)
	if err != nil {
		return a, err
	}
	a.AnswerType, a.Answer = r.answer.EventType(), data
	return a, nil
}

// handleAnswers delivers answers to the service's own reactions, and publishes those for which
// there is none.
func (k *calls) handleAnswers(ctx context.Context, tx *sqlx.Tx, answered []called) error {
	var batch []events.Event
	var published []Result
	for _, r := range answered {
		if h := k.handlerOf[r.answer.EventType()]; h == nil || h.call != nil {
			published = append(published, Result{r.request, Publish(r.answer)})
			continue
		}
		e := r.request
		e.Time, e.Data = time.Now().UTC(), r.answer
		batch = append(batch, e)
	}
	if len(published) > 0 {
		if err := k.execute(ctx, tx, published); err != nil {
			return err
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return k.applyAndExecute(ctx, tx, batch)
}

// writeOne is settle for one of a batch that failed. An answer that cannot be said is a failure of
// the call; while the database is away nothing is written, and the call is made again after its
// lease.
func (k *calls) writeOne(ctx context.Context, r called) {
	for reruns := 0; ; reruns++ {
		err := k.write(ctx, []called{r})
		if err == nil {
			return
		}
		if postgres.Alive(ctx, k.DB) != nil {
			k.Log.Warn().Err(err).Str("id", r.Key).Msg("the answer to a call is lost, it is made again")
			return
		}
		if dispose(err, 1, reruns, r.Attempts, true) != rerun {
			if r.failed != nil {
				return // what cannot be recorded is made again after its lease
			}
			r.failed = err
		}
		sleep(ctx, jitter(rerunPause))
	}
}
