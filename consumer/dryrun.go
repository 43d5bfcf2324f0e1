package consumer

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

// DryRun handles something that pends as a retry would, and rolls everything back. It returns the
// effects that it would have had, or why it fails. A transaction of another replica that has the
// same rows locked is waited for.
func (c *Consumer) DryRun(ctx context.Context, p inbox.Pending) (effects Effects, err error) {
	c.prepare()
	e, err := c.decoder.pending(p)
	if err != nil {
		return Effects{}, err
	}
	if c.handlers.isCall(e.Data.EventType()) {
		return Effects{}, ErrCallNotRun
	}
	err = c.work.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		results, err := c.work.react(ctx, tx, []events.Event{e})
		if err != nil {
			return err
		}
		for _, r := range results {
			effects = effects.And(r.Effects)
		}
		if err := c.work.write(ctx, tx, results); err != nil {
			return err
		}
		return errDryRun
	})
	if errors.Is(err, errDryRun) {
		return effects, nil
	}
	return Effects{}, err
}
