package resilience

import (
	"context"
	"time"
)

// bulkheadPause is when a call that found the queue full is worth another try.
const bulkheadPause = 200 * time.Millisecond

// Bulkhead lets at most concurrent calls run and at most queue more wait for their turn; the next
// is refused at once. So one peer that hangs cannot take all that a process has. A call that
// ignores its context keeps its place, unless a Timeout inside of the bulkhead ends it.
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
