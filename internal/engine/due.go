package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of the schedule.
const (
	dueInterval = 200 * time.Millisecond // how late a retry or a deadline may be noticed
	dueBatch    = 100
	// redoLockTimeout bounds the wait for a lock in a retry, which can wait again without losing
	// anything, and maxLockWaits how many of one type may do so before the others are put off.
	redoLockTimeout = `SET LOCAL lock_timeout = '1s'`
	maxLockWaits    = 3
)

// due delivers what is due to the service's own reactions: retries and deadlines. Every replica
// runs it; a claimed row is deleted with its effect, so each takes effect once. Outside calls have
// loops of their own, so that a slow one keeps no deadline waiting.
type due struct {
	*transactor
	decoder *decoder
	keeper  *keeper
}

// run redoes what is due until ctx is done.
func (u *due) run(ctx context.Context) { poll(ctx, u.db, u.log, nil, u.redo) }

// poll runs a step until ctx is done: at once again while there is more, and otherwise after
// dueInterval or a nudge. While the database is away it waits.
func poll(ctx context.Context, db *sqlx.DB, log zerolog.Logger, nudge <-chan struct{},
	step func(context.Context) (more bool, _ error)) {
	for probes := 0; ctx.Err() == nil; {
		more, err := step(ctx)
		switch {
		case err != nil && pg.Alive(ctx, db) != nil:
			if probes == 0 && ctx.Err() == nil {
				log.Warn().Err(err).Msg("database is away, retries and deadlines pause")
			}
			sleep(ctx, outagePause(probes))
			probes++
		case err != nil:
			log.Warn().Err(err).Msg("retries and deadlines")
			sleep(ctx, dueInterval)
		case !more:
			probes = 0
			sleepUntil(ctx, dueInterval, nudge)
		}
	}
}

// care reports retries and deadlines that no replica of this release will ever handle: another
// release has left them, and if it does not come back a person must know.
func (u *due) care(ctx context.Context) {
	for ctx.Err() == nil {
		types, err := u.inbox.Overdue(ctx, slices.Concat(u.handlers.reactions, u.handlers.calls)...)
		if err == nil && len(types) > 0 {
			u.log.Warn().Strs("types", types).Msg("what is overdue waits for a replica that knows its types")
		}
		sleep(ctx, careInterval)
	}
}

// redo handles what is due in one transaction; if that fails, one by one.
func (u *due) redo(ctx context.Context) (more bool, err error) {
	var claimed []inbox.Pending
	err = u.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if claimed, err = u.inbox.Claim(ctx, tx, dueBatch, u.handlers.reactions...); err != nil {
			return err
		}
		return u.redoIn(ctx, tx, claimed)
	})
	switch {
	case err == nil:
		for _, p := range claimed {
			u.stats.event(p.Type, eventHandled)
		}
		u.logRedone(claimed...)
	case len(claimed) == 0 || pg.Alive(ctx, u.db) != nil:
		return false, err
	case len(claimed) == 1:
		err = u.redoOne(ctx, claimed[0], &err)
	default: // one of them is to blame
		err = u.redoEach(ctx, claimed, err)
	}
	if len(claimed) > 0 {
		u.outbox.Nudge()
	}
	return len(claimed) == dueBatch, err
}

// redoEach handles due things one by one after their batch has failed. The one whose handler hangs
// is known, and the others are claimed again. Of those that wait for a lock only a few are tried in
// one go, since each takes its time and deadlines wait behind them.
func (u *due) redoEach(ctx context.Context, claimed []inbox.Pending, batch error) error {
	if hung, ok := errors.AsType[hungError](batch); ok {
		if i := slices.IndexFunc(claimed,
			func(p inbox.Pending) bool { return p.Key == hung.key }); i >= 0 {
			return u.redoOne(ctx, claimed[i], &batch)
		}
	}
	waits := map[string]int{}
	for _, p := range claimed {
		if ctx.Err() != nil {
			return nil
		}
		var failed error
		if waits[p.Type] >= maxLockWaits {
			failed = batch
		}
		if err := u.redoOne(ctx, p, &failed); err != nil {
			return err
		}
		if databaseFault(failed) {
			waits[p.Type]++
		}
	}
	return nil
}

// redoIn runs the reactions to claimed things and forgets them, in tx.
func (u *due) redoIn(ctx context.Context, tx *sqlx.Tx, claimed []inbox.Pending) error {
	if len(claimed) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, redoLockTimeout); err != nil {
		return fmt.Errorf("bound the wait for locks: %w", err)
	}
	batch := make([]events.Event, len(claimed))
	for i, p := range claimed {
		if err := u.hanging.check(checksOf(p.Type)); err != nil {
			return err
		}
		ended := watched(ctx, p.Key, checksOf(p.Type))
		e, err := u.decoder.pending(p)
		ended()
		if err != nil {
			return err
		}
		batch[i] = e
	}
	// Before the reactions: a deadline that is set again by its own reaction must stay.
	if _, err := u.inbox.Finish(ctx, tx, claimed...); err != nil {
		return err
	}
	return u.reactAndWrite(u.withScope(ctx, claimed...), tx, batch,
		func(i int) string { return claimed[i].Exchange })
}

// redoOne handles one due row alone, unless that has failed just now. If it fails, it waits for its
// next attempt or is parked, and failed is the reason.
func (u *due) redoOne(ctx context.Context, claimed inbox.Pending, failed *error) error {
	for reruns := 0; *failed == nil ||
		u.handlers.retryOf(claimed.Type).dispose(*failed, 1, reruns, 0, true) == rerun; reruns++ {
		if reruns > 0 {
			sleep(ctx, jitter(rerunPause))
		}
		var handled []inbox.Pending
		*failed = u.withClaim(ctx, claimed, func(ctx context.Context, tx *sqlx.Tx,
			p inbox.Pending) error {
			handled = []inbox.Pending{p}
			return u.redoIn(ctx, tx, handled)
		})
		if *failed == nil && len(handled) > 0 {
			u.stats.event(claimed.Type, eventHandled)
			u.logRedone(handled...)
		}
		if *failed == nil || ctx.Err() != nil {
			return nil
		}
	}
	if err := pg.Alive(ctx, u.db); err != nil {
		return err
	}
	err := u.withClaim(ctx, claimed, func(ctx context.Context, tx *sqlx.Tx, p inbox.Pending) error {
		return u.keeper.reschedule(ctx, tx, p, *failed)
	})
	if err != nil {
		return fmt.Errorf("schedule %s again: %w", claimed.Key, err)
	}
	return nil
}

// withClaim runs f with the claim on one due thing taken again; nothing happens when it is gone.
func (u *due) withClaim(ctx context.Context, claimed inbox.Pending,
	f func(context.Context, *sqlx.Tx, inbox.Pending) error) error {
	return u.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		p, ok, err := u.inbox.ClaimOne(ctx, tx, claimed.Owner, claimed.Key)
		if err != nil || !ok {
			return err
		}
		return f(ctx, tx, p)
	})
}
