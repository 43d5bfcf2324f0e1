package eventstore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/jmoiron/sqlx"
)

// The bounds of what a projection's functions may take.
const (
	// applyTimeout is how long a batch may take. PostgreSQL ends the transaction of a leader that is
	// silent for its lease, so a longer one would come to nothing.
	applyTimeout = 10 * time.Second
	// applyGrace is what code that ends with its context is given to end.
	applyGrace = time.Second
)

var (
	errExited = errors.New("the projection's function ended its goroutine (runtime.Goexit)")
	errHangs  = errors.New("the projection's function has not returned within its time, and is not " +
		"run again until it has")
)

type apply func(ctx context.Context, tx *sqlx.Tx, table string, batch []Decoded) error

// alone makes an apply run in a goroutine of its own, so that a function of an author which panics,
// ends its goroutine or hangs stops its own projection and no other. One that hangs is not run
// again until it returns, so that the goroutines which are lost are bounded.
func alone(f apply) apply {
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
