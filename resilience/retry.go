package resilience

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retries configures Retry: at most Max retries, after pauses that grow from First to Longest. Each
// pause is a random part of that (full jitter).
type Retries struct {
	Max            int
	First, Longest time.Duration
	Budget         *Budget // nil: no bound
}

// Retry makes a failed call again. It does not retry an answer, a call that was not made, a call to
// a peer that is down, or after the end of ctx. It retries nothing while the budget is used up.
func Retry(r Retries) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		pauses := backoff.WithContext(backoff.WithMaxRetries(&fullJitter{backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(r.First), backoff.WithMaxInterval(r.Longest),
			backoff.WithRandomizationFactor(0), backoff.WithMaxElapsedTime(0))}, uint64(max(0, r.Max))), ctx)
		var failed error // the error of an earlier attempt
		return backoff.Retry(func() error {
			err := call(ctx)
			if isNotMade(err) && failed != nil {
				// An earlier attempt was made and its outcome is unknown, so the error must not say that the
				// call was not made.
				err = failed
				return backoff.Permanent(err)
			}
			failed = err
			switch {
			case err == nil:
				r.Budget.earn()
			case isNotMade(err), isAnswer(err), isPeerDown(err), !r.Budget.spend():
				return backoff.Permanent(err)
			}
			return err
		}, pauses)
	}
}

// fullJitter replaces each pause by a random one up to it, so that calls that failed at the same
// time are not retried at the same time.
type fullJitter struct{ backoff.BackOff }

func (j *fullJitter) NextBackOff() time.Duration {
	d := j.BackOff.NextBackOff()
	if d == backoff.Stop {
		return d
	}
	return rand.N(d + 1)
}

// The bounds of a budget, as in gRPC's retry throttling (proposal A6).
const (
	budgetMax  = 10.0
	budgetEarn = 0.1
)

// Budget bounds retries to about a tenth of the calls that succeed, so that a peer that fails does
// not get several times as many calls as one that works. The zero value is full.
type Budget struct {
	mu    sync.Mutex
	spent float64
}

func (b *Budget) earn() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-budgetEarn)
}

// spend counts a failure and reports whether a retry may follow.
func (b *Budget) spend() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = min(budgetMax, b.spent+1)
	return b.spent < budgetMax/2
}
