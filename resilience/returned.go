package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// hangPatience is what a call is given to return once its context has ended.
const hangPatience = time.Second

// ErrHung says that a call has not returned although its context has ended. Its goroutine goes on.
var ErrHung = errors.New("the call has not returned although its context has ended")

// errExited says that a call has ended its goroutine, with runtime.Goexit.
var errExited = errors.New("the call ended its goroutine (runtime.Goexit)")

// returned makes a call in a goroutine of its own, so that one which ends its goroutine or ignores
// its context is an error like any other. Otherwise a breaker would wait without end for the one
// call that decides whether its peer is back. A panic goes on in the caller.
func returned(ctx context.Context, call func(context.Context) error) error {
	type result struct{ err, cause any }
	done := make(chan result, 1)
	go func() { // ends with the call
		r := result{err: errExited}
		defer func() {
			r.cause = recover()
			done <- r
		}()
		r.err = call(ctx)
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		timer := time.NewTimer(hangPatience)
		defer timer.Stop()
		select {
		case r = <-done:
		case <-timer.C:
			return fmt.Errorf("%w: %v", ErrHung, context.Cause(ctx))
		}
	}
	if r.cause != nil {
		panic(r.cause)
	}
	err, _ := r.err.(error)
	return err
}
