package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
)

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
		k.writeAll(ctx, batch)
		for range batch {
			<-k.slots
		}
	}
}

// writeAll writes down a batch; if that fails, one by one. An answer whose reaction hangs is known
// by its id: it has failed, and the others need not wait that long once more.
func (k *calls) writeAll(ctx context.Context, batch []called) {
	err := k.write(ctx, batch)
	if err == nil {
		return
	}
	if hung, ok := errors.AsType[hungError](err); ok {
		i := slices.IndexFunc(batch, func(r called) bool {
			return r.failed == nil && r.request.ID == hung.key
		})
		if i >= 0 {
			r := batch[i]
			r.failed = hung
			k.writeOne(ctx, r)
			if others := slices.Delete(slices.Clone(batch), i, i+1); len(others) > 0 {
				k.writeAll(ctx, others)
			}
			return
		}
	}
	for _, r := range batch {
		k.writeOne(ctx, r)
	}
}

// write records what calls have returned, in one transaction: answers with their effects, and
// failures with their next attempt. What another replica has recorded since the lease was over has
// no effect again.
func (k *calls) write(ctx context.Context, batch []called) error {
	var recorded int
	err := k.work.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
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
		return k.handleAnswers(k.work.withScope(ctx, pendingIn(batch)...), tx,
			slices.DeleteFunc(slices.Clone(batch), func(r called) bool {
				return r.answer == nil || r.failed != nil || !done[inbox.Name{Owner: r.Owner, Key: r.Key}]
			}))
	})
	if err == nil {
		k.stats.handled.Add(int64(recorded))
		k.Outbox.Nudge()
	}
	return err
}

// pendingIn returns the calls of a batch, whose attempts are those of their answers.
func pendingIn(batch []called) []inbox.Pending {
	list := make([]inbox.Pending, len(batch))
	for i, r := range batch {
		list[i] = r.Pending
	}
	return list
}

// answerOf returns what the history of calls keeps.
func answerOf(r called) (inbox.Answer, error) {
	a := inbox.Answer{Pending: r.Pending, ID: r.request.ID}
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
		if !k.handlers.reacts(r.answer.EventType()) {
			published = append(published, Result{r.request, Publish(r.answer)})
			continue
		}
		if !k.handlers.service.MayAnswer(r.Type, r.answer.EventType()) {
			return Permanent(fmt.Errorf("%s may not answer %s: the topology of %s does not declare it",
				r.answer.EventType(), r.Type, k.Name))
		}
		e := r.request
		e.Time, e.Data = time.Now().UTC(), r.answer
		batch = append(batch, e)
	}
	if len(published) > 0 {
		if err := k.work.write(ctx, tx, published); err != nil {
			return err
		}
	}
	if len(batch) == 0 {
		return nil
	}
	// All other answers wait meanwhile.
	if _, err := tx.ExecContext(ctx, redoLockTimeout); err != nil {
		return fmt.Errorf("bound the wait for locks: %w", err)
	}
	return k.work.reactAndWrite(ctx, tx, batch)
}

// writeOne is write for one of a batch that failed. An answer that cannot be handled is a failure
// of the call; while the database is away nothing is written, and the call is made again after its
// lease.
func (k *calls) writeOne(ctx context.Context, r called) {
	for reruns := 0; ; reruns++ {
		err := k.write(ctx, []called{r})
		if err == nil {
			return
		}
		if pg.Alive(ctx, k.DB) != nil {
			k.Log.Warn().Err(err).Str("id", r.Key).Msg("the answer to a call is lost, it is made again")
			return
		}
		if k.handlers.retryOf(r.Type).dispose(err, 1, reruns, r.Attempts, true) != rerun {
			if r.failed != nil {
				return // what cannot be recorded is made again after its lease
			}
			r.failed = err
		}
		sleep(ctx, jitter(rerunPause))
	}
}
