// Package resilience guards calls to an outside world that is slow, fails, and answers late:
// time-out, retry with a budget, circuit breaker, bulkhead, and a rate limit that all replicas
// share. Each is a Guard; Chain puts those together that a call needs.
//
// It promises that a call which is refused here was not made, and that the error of one which
// failed because the peer is down says so: both tell how long to wait, so that work can be set
// aside without an attempt spent. It does not make a call idempotent; that takes a key that the
// other side honours.
package resilience

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Guard makes a call, or does not. It is safe for concurrent use.
type Guard func(ctx context.Context, call func(context.Context) error) error

// Chain guards a call by all of the guards, the first outermost.
func Chain(guards ...Guard) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		for _, guard := range slices.Backward(guards) {
			inner := call
			call = func(ctx context.Context) error { return guard(ctx, inner) }
		}
		return call(ctx)
	}
}

// NotMadeError says that a call was not made.
type NotMadeError struct {
	Why   string
	After time.Duration // when to try again
}

func (e NotMadeError) Error() string { return fmt.Sprintf("call not made: %s", e.Why) }

// RetryAfter tells after which pause it is worth another try. Package consumer knows an error that
// costs no attempt by this method.
func (e NotMadeError) RetryAfter() time.Duration { return e.After }

// PeerDownError says that a call failed like those before it: the breaker is open now. That is no
// fault of the call; whether what it asked for was done is unknown.
type PeerDownError struct {
	Err   error
	After time.Duration // when to try again
}

func (e PeerDownError) Error() string { return fmt.Sprintf("%v (the peer is down)", e.Err) }
func (e PeerDownError) Unwrap() error { return e.Err }

// RetryAfter is that of NotMadeError.
func (e PeerDownError) RetryAfter() time.Duration { return e.After }

// Made tells that the call was made: package consumer does not make it again for ever at no cost.
func (e PeerDownError) Made() bool { return true }

// answered marks an error that the other side gave as its answer.
type answered struct{ error }

func (a answered) Unwrap() error { return a.error }

// Answered returns err marked as the answer of a peer that is well, such as a refusal of malformed
// input: it is no failure to a breaker, and not tried again.
func Answered(err error) error { return answered{err} }

func isAnswer(err error) bool {
	var a answered
	return errors.As(err, &a)
}

func isPeerDown(err error) bool {
	var d PeerDownError
	return errors.As(err, &d)
}

func isNotMade(err error) bool {
	var n NotMadeError
	return errors.As(err, &n)
}

// Timeout bounds each call, also one that ignores its context: that returns ErrHung.
func Timeout(d time.Duration) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %s: %w", d,
			context.DeadlineExceeded))
		defer cancel()
		err := returned(ctx, call)
		if err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}
