package engine

import (
	"context"
	"errors"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

// ErrCallNotRun is the error of a dry run whose handler makes an outside call, which no rollback
// undoes.
var ErrCallNotRun = errors.New("its handler calls the outside world, which cannot be undone")

// errDryRun rolls a dry run back.
var errDryRun = errors.New("tried")

// Check reports why a handler could not read something that pends.
func (n *Engine) Check(p inbox.Pending) error {
	_, err := n.decoder.pending(p)
	return err
}

// DryRun handles something that pends as a retry would, and rolls everything back. It returns the
// effects that it would have had, or why it fails. A transaction of another replica that has the
// same rows locked is waited for.
func (n *Engine) DryRun(ctx context.Context, p inbox.Pending) (effects Effects, err error) {
	e, err := n.decoder.pending(p)
	if err != nil {
		return Effects{}, err
	}
	if n.handlers.isCall(e.Data.EventType()) {
		return Effects{}, ErrCallNotRun
	}
	err = n.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		results, err := n.react(ctx, tx, []events.Event{e})
		if err != nil {
			return err
		}
		for _, r := range results {
			effects.Publish = append(effects.Publish, r.Effects.Publish...)
			effects.Schedule = append(effects.Schedule, r.Effects.Schedule...)
			effects.Request = append(effects.Request, r.Effects.Request...)
		}
		if err := n.Write(ctx, tx, results...); err != nil {
			return err
		}
		return errDryRun
	})
	if errors.Is(err, errDryRun) {
		return effects, nil
	}
	return Effects{}, err
}
