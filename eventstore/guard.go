package eventstore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/jmoiron/sqlx"
)

// The bounds of a projection's functions.
const (
	// applyTimeout bounds a batch. PostgreSQL ends the transaction of a leader that is silent for its
	// lease, so a longer batch could not be committed.
	applyTimeout = 10 * time.Second
	// applyGrace is how long code may take to return after its context has ended.
	applyGrace = time.Second
)

var (
	errExited = errors.New("the projection's function ended its goroutine (runtime.Goexit)")
	errHangs  = errors.New("the projection's function has not returned within " +
		applyTimeout.String() + " and does not run again until it has")
)

// apply writes a batch of decoded facts to a table, within the transaction that moves the
// checkpoint.
type apply func(ctx context.Context, tx *sqlx.Tx, table string, batch []Decoded) error

// isolated runs an apply in a goroutine of its own. If the author's function panics, exits or
// hangs, it then stops its own projection only. A function that hangs does not run again until it
// returns, so that at most one goroutine for each projection is blocked.
func isolated(f apply) apply {
	running := make(chan struct{}, 1)
	return func(ctx context.Context, tx *sqlx.Tx, table string, batch []Decoded) error {
		select {
		case running <- struct{}{}:
		default:
			return errHangs
		}
		ctx, cancel := context.WithTimeout(ctx, applyTimeout)
		done := make(chan error, 1)
		go func() { // ends with f
			err := errExited
			defer func() {
				if cause := recover(); cause != nil {
					err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
				}
				cancel()
				<-running
				done <- err
			}()
			err = f(ctx, tx, table, batch)
		}()
		timer := time.NewTimer(applyTimeout + applyGrace)
		defer timer.Stop()
		select {
		case err := <-done:
			return err
		case <-timer.C:
			return errHangs
		}
	}
}
