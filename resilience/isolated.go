package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// hangTimeout is how long a call may take to return after its context has ended.
const hangTimeout = time.Second

// ErrHung means that a call has not returned although its context has ended. Its goroutine
// continues to run.
var ErrHung = errors.New("the call has not returned although its context has ended")

// errExited means that a call has ended its goroutine with runtime.Goexit.
var errExited = errors.New("the call ended its goroutine (runtime.Goexit)")

// isolated makes a call in a goroutine of its own and returns an error if the call ends that
// goroutine or ignores its context. Otherwise a breaker would wait forever for the single call of
// its half-open state. A panic of the call continues in the caller.
func isolated(ctx context.Context, call func(context.Context) error) error {
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
		timer := time.NewTimer(hangTimeout)
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
