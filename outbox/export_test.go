package outbox

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// Listen makes a relay listen for nudges until the test ends.
func Listen(t *testing.T, r *Relay) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.listen(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// Nudged reports whether there is a nudge, and consumes it.
func Nudged(o *Outbox) bool {
	select {
	case <-o.nudge:
		return true
	default:
		return false
	}
}

// DeleteOld runs one pass of the retention.
func (r *Relay) DeleteOld(ctx context.Context, lead *pg.Lead) error {
	return r.deleteOld(ctx, lead)
}

// Leader is the lock that relays compete for.
var Leader = leader

// LimitWindow bounds the rows of a window that a relay keeps in memory.
func (r *Relay) LimitWindow(rows int) { r.maxRows = rows }

// HeldQueries are the statements on outbox_held that the relay runs at every poll or for every
// batch.
var HeldQueries = map[string]string{"due": dueSQL, "aggregates": heldAggregatesSQL,
	"refused": countRefusedSQL, "next": nextDueSQL}

// Saver takes the cursor and returns a function that saves it.
func Saver(ctx context.Context, lead *pg.Lead) (save func() error, err error) {
	c, err := takeCursor(ctx, lead)
	ctid := ""
	return func() (err error) {
		ctid, err = c.update(ctx, lead.Conn(), ctid)
		return err
	}, err
}

// WatchSnapshot looks once for a transaction that is older than age.
func (r *Relay) WatchSnapshot(ctx context.Context, age time.Duration) error {
	_, err := r.watchSnapshot(ctx, age, true)
	return err
}
