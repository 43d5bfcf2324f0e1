package consumer

import (
	"context"
	"errors"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/inbox"
)

// ErrNotTried says that an event cannot be tried without doing it: its handler calls the outside world.
var ErrNotTried = errors.New("its handler calls the outside world, which cannot be undone")

// errTried rolls back what was only tried.
var errTried = errors.New("tried")

// Try handles something that pends as a retry would, and rolls everything back. It returns what would
// have been said, or why it fails. Another that has the same rows in hand is waited for.
func (c *Consumer) Try(ctx context.Context, p inbox.Pending) (said []events.Event, err error) {
	c.prepare()
	e, err := c.reopen(p)
	if err != nil {
		return nil, err
	}
	if h := c.handlerOf[e.Data.EventType()]; h != nil && h.call != nil {
		return nil, ErrNotTried
	}
	err = c.inTx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		if said, err = c.apply(ctx, tx, []events.Event{e}); err != nil {
			return err
		}
		if err := c.checkSaid([]events.Event{e}, said); err != nil {
			return err
		}
		if err := c.Emit(ctx, tx, said...); err != nil {
			return err
		}
		return errTried
	})
	if errors.Is(err, errTried) {
		return said, nil
	}
	return nil, err
}
