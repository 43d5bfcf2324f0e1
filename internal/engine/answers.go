package engine

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

// answers record what calls have returned. It is for one goroutine.
type answers struct {
	*transactor
	keeper *keeper
}

// recordAll writes down a batch; if that fails, one by one. An answer whose reaction hangs is known
// by its id: it has failed, and the others need not wait that long once more.
func (w *answers) recordAll(ctx context.Context, batch []called) {
	err := w.record(ctx, batch)
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
			w.recordOne(ctx, r)
			if others := slices.Delete(slices.Clone(batch), i, i+1); len(others) > 0 {
				w.recordAll(ctx, others)
			}
			return
		}
	}
	for _, r := range batch {
		w.recordOne(ctx, r)
	}
}

// record writes down what calls have returned, in one transaction: answers with their effects, and
// failures with their next attempt. What another replica has recorded since the lease was over has
// no effect again.
func (w *answers) record(ctx context.Context, batch []called) error {
	var recorded []string        // types
	var done map[inbox.Name]bool // recorded now
	err := w.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		answers := make([]inbox.Answer, 0, len(batch))
		for _, r := range batch {
			if r.failed != nil {
				if err := w.keeper.reschedule(ctx, tx, r.Pending, r.failed); err != nil {
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
		var err error
		if done, err = w.inbox.Answer(ctx, tx, answers...); err != nil {
			return err
		}
		recorded = recorded[:0]
		for _, a := range answers {
			if done[inbox.Name{Owner: a.Owner, Key: a.Key}] {
				recorded = append(recorded, a.Type)
			}
		}
		return w.handleAnswers(w.withScope(ctx, pendingIn(batch)...), tx,
			slices.DeleteFunc(slices.Clone(batch), func(r called) bool {
				return r.answer == nil || r.failed != nil || !done[inbox.Name{Owner: r.Owner, Key: r.Key}]
			}))
	})
	if err == nil {
		for _, callType := range recorded {
			w.stats.event(callType, eventHandled)
		}
		w.logAnswered(batch, done)
		w.outbox.Nudge()
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
func (w *answers) handleAnswers(ctx context.Context, tx *sqlx.Tx, answered []called) error {
	var batch []events.Event
	var published []Result
	for _, r := range answered {
		if !w.handlers.reacts(r.answer.EventType()) {
			published = append(published, Result{r.request, Effects{Publish: []events.Payload{r.answer}}})
			continue
		}
		if !w.handlers.service.MayAnswer(r.Type, r.answer.EventType()) {
			return Permanent(fmt.Errorf("%s may not answer %s: the topology of %s does not declare it",
				r.answer.EventType(), r.Type, w.handlers.service.Name))
		}
		e := r.request
		e.Time, e.Data = time.Now().UTC(), r.answer
		batch = append(batch, e)
	}
	if len(published) > 0 {
		if err := w.Write(ctx, tx, published...); err != nil {
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
	return w.reactAndWrite(ctx, tx, batch, func(int) string { return "" })
}

// recordOne is record for one of a batch that failed. An answer that cannot be handled is a failure
// of the call; while the database is away nothing is written, and the call is made again after its
// lease.
func (w *answers) recordOne(ctx context.Context, r called) {
	for reruns := 0; ; reruns++ {
		err := w.record(ctx, []called{r})
		if err == nil {
			return
		}
		if pg.Alive(ctx, w.db) != nil {
			w.log.Warn().Err(err).EmbedObject(aboutPending(r.Pending)).Int("attempt", r.Attempts+1).
				Msg("the answer to a call is lost, it is made again")
			return
		}
		if w.handlers.retryOf(r.Type).dispose(err, 1, reruns, r.Attempts, true) != rerun {
			if r.failed != nil {
				return // what cannot be recorded is made again after its lease
			}
			r.failed = err
		}
		sleep(ctx, jitter(rerunPause))
	}
}
