package consumer

import (
	"context"
	"errors"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/inbox"
)

// ErrCallNotRun says that an event cannot be tried without doing it: its handler calls the outside
// world.
var ErrCallNotRun = errors.New("its handler calls the outside world, which cannot be undone")

// errDryRun rolls back what was only tried.
var errDryRun = errors.New("tried")

// DryRun handles something that pends as a retry would, and rolls everything back. It returns what
// would have been said, or why it fails. Another that has the same rows in hand is waited for.
func (c *Consumer) DryRun(ctx context.Context, p inbox.Pending) (published []events.Event,
	err error) {
	c.prepare()
	e, err := c.decodePending(p)
	if err != nil {
		return nil, err
	}
	if h := c.handlerOf[e.Data.EventType()]; h != nil && h.call != nil {
		return nil, ErrCallNotRun
	}
	err = c.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if published, err = c.apply(ctx, tx, []events.Event{e}); err != nil {
			return err
		}
		if err := c.checkPublished([]events.Event{e}, published); err != nil {
			return err
		}
		if err := c.Emit(ctx, tx, published...); err != nil {
			return err
		}
		return errDryRun
	})
	if errors.Is(err, errDryRun) {
		return published, nil
	}
	return nil, err
}
