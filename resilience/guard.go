// Package resilience guards calls to other systems, which may be slow or fail. It has a time-out,
// a retry with a budget, a circuit breaker, a bulkhead, and a rate limit that all replicas share.
// Each is a Guard, and Chain combines them.
//
// A call that a guard refuses was not made (NotMadeError). A call that failed because the peer is
// down returns a PeerDownError. Both say how long to wait, so that package consumer can retry
// without counting an attempt. The package does not make a call idempotent; for that the other
// system must support an idempotency key.
package resilience

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Guard makes a call or refuses it. It is safe for concurrent use.
type Guard func(ctx context.Context, call func(context.Context) error) error

// Chain combines guards into one. The first guard is the outermost.
func Chain(guards ...Guard) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		for _, guard := range slices.Backward(guards) {
			inner := call
			call = func(ctx context.Context) error { return guard(ctx, inner) }
		}
		return call(ctx)
	}
}

// NotMadeError means that a call was not made.
type NotMadeError struct {
	Why   string
	After time.Duration // the pause before a retry
}

func (e NotMadeError) Error() string { return fmt.Sprintf("call not made: %s", e.Why) }

// RetryAfter returns the pause before a retry. An error with this method makes package consumer
// retry without counting an attempt.
func (e NotMadeError) RetryAfter() time.Duration { return e.After }

// PeerDownError means that a call failed like those before it, and that the breaker is open now.
// The peer is at fault and not the call. Whether the peer has acted on the call is unknown.
type PeerDownError struct {
	Err   error
	After time.Duration // the pause before a retry
}

func (e PeerDownError) Error() string { return fmt.Sprintf("%v (the peer is down)", e.Err) }
func (e PeerDownError) Unwrap() error { return e.Err }

// RetryAfter does the same as that of NotMadeError.
func (e PeerDownError) RetryAfter() time.Duration { return e.After }

// Made reports that the call was made. Package consumer bounds how often it retries such a call
// without counting an attempt.
func (e PeerDownError) Made() bool { return true }

// answered marks an error that is an answer of the peer.
type answered struct{ error }

func (a answered) Unwrap() error { return a.error }

// Answered marks err as an answer of a working peer, such as a refusal of malformed input. It does
// not count as a failure for a breaker, and is not retried.
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

// Timeout bounds the time of each call. If a call ignores its context, the error is ErrHung.
func Timeout(d time.Duration) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %s: %w", d,
			context.DeadlineExceeded))
		defer cancel()
		err := isolated(ctx, call)
		if err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}
