package engine

import (
	"context"
	"errors"
	"time"

	"github.com/quadrille-go/quadrille/internal/inbox"
)

// The bounds of what is deleted because it is old.
const (
	careInterval   = time.Minute
	forgetAtOnce   = 1000                  // rows in one statement
	forgetPause    = 10 * time.Millisecond // between statements, for what else the database does
	maxIdleBatches = 20                    // without a deletion, after which a pass stops
)

// errOld is the reason of an event that is older than the receipts that are kept. Whether it was
// handled before is not known, so it must not be handled, and must not be lost either.
var errOld = errors.New("it is older than the receipts of handled events are kept " +
	"(Bounds.ReceiptHistory), so it may have been handled before: redrive it if it was not, " +
	"else discard it")

// old reports whether the receipt of an event may have been deleted already. A message without
// a time, which no outbox publishes, counts as young.
func (k *keeper) old(it item) bool {
	return !it.record.Time.IsZero() && time.Since(it.record.Time) > k.handlers.bounds.ReceiptHistory
}

// forgetter deletes what is old, a batch at a time. It is used by one goroutine.
type forgetter struct {
	*transactor
	old     inbox.Forgetter
	reached map[string]string // by owner, the id of the receipt that the last pass has reached
}

// run deletes what is old until ctx is done. Replicas may do it at the same time.
func (f *forgetter) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := errors.Join(f.all(ctx, f.old.Calls, f.handlers.bounds.CallHistory),
			f.all(ctx, f.old.Repairs, f.handlers.bounds.RepairHistory), f.receipts(ctx))
		if err != nil && ctx.Err() == nil {
			f.log.Warn().Err(err).Msg("what is old cannot be deleted, the next pass tries again")
		}
		sleep(ctx, careInterval)
	}
}

// all deletes all old rows of a table, since a bound for each interval would let it grow as soon as
// more rows come.
func (f *forgetter) all(ctx context.Context,
	forget func(ctx context.Context, keep time.Duration, limit int) (int64, error),
	keep time.Duration) error {
	for ctx.Err() == nil {
		n, err := forget(ctx, keep, forgetAtOnce)
		if err != nil || n < forgetAtOnce {
			return err
		}
		sleep(ctx, forgetPause)
	}
	return nil
}

// receipts deletes old receipts. Ids usually grow with time, so each pass begins with the lowest of
// each owner and stops at the first batch without a deletion. Ids that do not grow may hide old
// receipts behind young ones, so each pass also reads a bounded part of the others, from where the
// pass before has ended.
func (f *forgetter) receipts(ctx context.Context) error {
	owners, err := f.old.Owners(ctx)
	for _, owner := range owners {
		lowest, end, err := f.receiptsFrom(ctx, owner, "", 1)
		if err != nil {
			return err
		}
		if end {
			continue
		}
		if f.reached[owner], end, err = f.receiptsFrom(ctx, owner, max(lowest, f.reached[owner]),
			maxIdleBatches); err != nil {
			return err
		}
		if end {
			delete(f.reached, owner)
		}
	}
	return err
}

// receiptsFrom reads receipts after an id until that many batches were without a deletion. It
// returns the id that it has reached, and whether that is the last one.
func (f *forgetter) receiptsFrom(ctx context.Context, owner, after string,
	idle int) (reached string, end bool, err error) {
	for reached = after; idle > 0 && ctx.Err() == nil; {
		batch, err := f.old.Receipts(ctx, owner, reached, f.handlers.bounds.ReceiptHistory,
			forgetAtOnce)
		if err != nil || batch.Read < forgetAtOnce {
			return reached, true, err
		}
		reached = batch.Reached
		if batch.Deleted == 0 {
			idle--
		}
		sleep(ctx, forgetPause)
	}
	return reached, false, ctx.Err()
}
