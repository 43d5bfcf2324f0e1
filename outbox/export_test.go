package outbox

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/postgres"
)

// Listen lets a relay listen until the test ends.
func Listen(t *testing.T, r *Relay) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.listen(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// Nudged takes a nudge when there is one.
func Nudged(o *Outbox) bool {
	select {
	case <-o.nudge:
		return true
	default:
		return false
	}
}

// DeleteOld is one pass of the retention.
func (r *Relay) DeleteOld(ctx context.Context, lead *postgres.Lead) error {
	return r.deleteOld(ctx,
		lead)
}

// Leader is who relays.
var Leader = leader

// LimitWindow makes a relay take so few rows of a window into memory.
func (r *Relay) LimitWindow(rows int) { r.maxRows = rows }

// HeldQueries are the statements about what is held that every poll, or every batch, makes: with
// some aggregates each, as text[], and with a limit.
var HeldQueries = map[string]string{"heads": dueSQL, "behind": heldAggregatesSQL,
	"refused": countRefusedSQL, "next": nextDueSQL}

// Saver takes the cursor and returns what saves it, again and again.
func Saver(ctx context.Context, lead *postgres.Lead) (save func() error, err error) {
	c, err := takeCursor(ctx, lead)
	place := ""
	return func() (err error) {
		place, err = c.save(ctx, lead, place, nil)
		return err
	}, err
}

// WatchSnapshot looks once for a transaction that is older.
func (r *Relay) WatchSnapshot(ctx context.Context, age time.Duration) error {
	_, err := r.watchSnapshot(ctx, age, true)
	return err
}
