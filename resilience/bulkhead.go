package resilience

import (
	"context"
	"time"
)

// bulkheadPause is the pause before a call that found the queue full is retried.
const bulkheadPause = 200 * time.Millisecond

// Bulkhead runs at most concurrent calls at a time and lets at most queue further ones wait; it
// refuses all others at once. A peer that hangs can therefore not use up the resources of the
// process. A call that ignores its context keeps its slot, unless a Timeout inside the bulkhead
// ends it.
func Bulkhead(concurrent, queue int) Guard {
	running := make(chan struct{}, concurrent)
	inside := make(chan struct{}, concurrent+queue)
	return func(ctx context.Context, call func(context.Context) error) error {
		select {
		case inside <- struct{}{}:
		default:
			return NotMadeError{Why: "the bulkhead is full", After: bulkheadPause}
		}
		defer func() { <-inside }()
		select {
		case running <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-running }()
		return call(ctx)
	}
}
