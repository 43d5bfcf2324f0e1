package resilience

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retries says how a call is made again: at most Max times, after pauses that grow from First to
// Longest, each drawn from nothing to the whole (full jitter).
type Retries struct {
	Max            int
	First, Longest time.Duration
	Budget         *Budget // nil: none
}

// Retry makes a failed call again. An answer, a call that was not made or to a peer that is down,
// and the end of ctx are not tried again, nor is anything once the budget is used up.
func Retry(r Retries) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		pauses := backoff.WithContext(backoff.WithMaxRetries(&fullJitter{backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(r.First), backoff.WithMaxInterval(r.Longest),
			backoff.WithRandomizationFactor(0), backoff.WithMaxElapsedTime(0))}, uint64(max(0, r.Max))), ctx)
		var failed error // of an earlier try
		return backoff.Retry(func() error {
			err := call(ctx)
			if isNotMade(err) && failed != nil {
				err = failed // a call was made, and its outcome is unknown: that must not be hidden
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

// fullJitter draws each pause from zero to what the inner one says, so that many that failed
// together do not come back together.
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

// Budget bounds retries to about a tenth of the calls that succeed, so that a peer in trouble is
// not called several times as often as when it is well. The zero value is full.
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

// spend counts a failure and tells whether a retry may follow.
func (b *Budget) spend() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = min(budgetMax, b.spent+1)
	return b.spent < budgetMax/2
}
