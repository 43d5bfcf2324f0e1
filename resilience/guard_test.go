package resilience_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quadrille-go/quadrille/resilience"
)

var errDown = errors.New("down")

func fail(context.Context) error    { return errDown }
func succeed(context.Context) error { return nil }

func TestTimeoutBoundsACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := resilience.Timeout(time.Second)(t.Context(), func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if took := time.Since(began); took != time.Second || !errors.Is(err, context.DeadlineExceeded) ||
			err.Error() != "no answer within 1s: context deadline exceeded" {
			t.Errorf("%v after %s", err, took)
		}
		if err := resilience.Timeout(time.Second)(t.Context(), fail); !errors.Is(err, errDown) {
			t.Errorf("a call that failed in time: %v", err)
		}
	})
}

// A call ends at the deadline of its caller where that comes before the end of the time-out.
func TestTimeoutEndsAtTheEarlierDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ own, caller time.Duration }{
			{2 * time.Second, time.Second}, {time.Second, 2 * time.Second},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), c.caller)
			began := time.Now()
			err := resilience.Timeout(c.own)(ctx, func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
			cancel()
			took := time.Since(began)
			if took != time.Second || !errors.Is(err, context.DeadlineExceeded) ||
				strings.Contains(err.Error(), "no answer within") != (c.own == time.Second) {
				t.Errorf("a time-out of %s with a caller's of %s: %v after %s", c.own, c.caller, err, took)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := resilience.Timeout(time.Hour)(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that gives up: %v", err)
		}
	})
}

// A call that ignores its context is also bounded, and releases its slot in the bulkhead.
func TestTimeoutBoundsACallThatIgnoresIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		guard := resilience.Chain(resilience.Bulkhead(1, 0), resilience.Timeout(time.Second))
		began := time.Now()
		err := guard(t.Context(), func(context.Context) error { <-release; return nil })
		if took := time.Since(began); took > 2*time.Second || !errors.Is(err, resilience.ErrHung) ||
			!strings.Contains(err.Error(), "no answer within 1s") {
			t.Errorf("%v after %s", err, took)
		}
		if err := guard(t.Context(), succeed); err != nil {
			t.Errorf("the next call: %v", err)
		}
		close(release)
	})
}

func TestRetryHasABoundAndPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retry := resilience.Retry(resilience.Retries{Max: 3, First: time.Second,
			Longest: 2 * time.Second})
		var total time.Duration
		for range 200 {
			calls, began := 0, time.Now()
			err := retry(t.Context(), func(context.Context) error { calls++; return errDown })
			if took := time.Since(began); calls != 4 || !errors.Is(err, errDown) || took > 5*time.Second {
				t.Fatalf("%d calls, %v after %s", calls, err, took)
			}
			total += time.Since(began)
		}
		// The pauses are uniform random values up to 1, 1.5 and 2 seconds: 2.25 s in total on average.
		if mean := total / 200; mean < 1900*time.Millisecond || mean > 2600*time.Millisecond {
			t.Errorf("the pauses of a call are %s on average", mean)
		}
	})
}

// A pause is drawn from nothing to the whole, so that calls that failed together come back apart.
func TestPausesAreSpreadOverTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retry := resilience.Retry(resilience.Retries{Max: 1, First: time.Second, Longest: time.Second})
		shortest, longest := time.Hour, time.Duration(0)
		for range 200 {
			began := time.Now()
			_ = retry(t.Context(), fail)
			shortest, longest = min(shortest, time.Since(began)), max(longest, time.Since(began))
		}
		// One time in a thousand million no pause of 200 is in the first, or in the last, tenth.
		if shortest > 100*time.Millisecond || longest < 900*time.Millisecond || longest > time.Second {
			t.Errorf("the pauses are from %s to %s", shortest, longest)
		}
	})
}

// A retry ends with its context, also during a pause.
func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retry := resilience.Retry(resilience.Retries{Max: 1000, First: time.Minute, Longest: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		if err := retry(ctx, fail); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(began) != time.Hour {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestSomeErrorsAreNotRetried(t *testing.T) {
	t.Parallel()
	retry := resilience.Retry(resilience.Retries{Max: 3, First: time.Millisecond,
		Longest: time.Millisecond})
	for name, err := range map[string]error{
		"an answer":                resilience.Answered(errDown),
		"a call that was not made": resilience.NotMadeError{Why: "x"},
		"a peer that is down":      resilience.PeerDownError{Err: errDown, After: time.Minute},
	} {
		calls := 0
		got := retry(t.Context(), func(context.Context) error { calls++; return err })
		if calls != 1 || !errors.Is(got, err) {
			t.Errorf("%s: %d calls, %v", name, calls, got)
		}
	}
}

// A peer that is down gets hardly more calls than one that works.
func TestBudgetKeepsRetriesFew(t *testing.T) {
	t.Parallel()
	budget := &resilience.Budget{}
	retry := resilience.Retry(resilience.Retries{Max: 3, First: time.Microsecond,
		Longest: time.Microsecond, Budget: budget})
	calls := 0
	count := func(err error) func(context.Context) error {
		return func(context.Context) error { calls++; return err }
	}
	for range 1000 {
		_ = retry(t.Context(), count(errDown))
	}
	if calls > 1010 {
		t.Errorf("%d calls with retries for 1000 calls", calls)
	}
	for range 1000 { // the peer works again
		_ = retry(t.Context(), count(nil))
	}
	calls = 0
	_ = retry(t.Context(), count(errDown))
	if calls != 4 {
		t.Errorf("%d calls with a full budget, want 4", calls)
	}
}

func TestBulkheadBoundsAndRefusesFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := resilience.Bulkhead(2, 3)
		var running, maxRunning, refused atomic.Int32
		release := make(chan struct{})
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				err := guard(t.Context(), func(context.Context) error {
					maxRunning.Store(max(maxRunning.Load(), running.Add(1)))
					<-release
					running.Add(-1)
					return nil
				})
				if n := (resilience.NotMadeError{}); errors.As(err, &n) && n.RetryAfter() > 0 {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if running.Load() != 2 || refused.Load() != 5 {
			t.Errorf("%d calls run and %d were refused, want 2 and 5", running.Load(), refused.Load())
		}
		close(release)
		all.Wait()
		if maxRunning.Load() != 2 {
			t.Errorf("%d calls ran at a time, want 2", maxRunning.Load())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		full := resilience.Bulkhead(0, 1)
		if err := full(ctx, succeed); !errors.Is(err, context.Canceled) {
			t.Errorf("a call whose context has ended: %v", err)
		}
	})
}

// The first guard is the outermost, so that the guards inside a retry apply to each attempt.
func TestChainIsInOrder(t *testing.T) {
	t.Parallel()
	var order []string
	guard := func(name string) resilience.Guard {
		return func(ctx context.Context, call func(context.Context) error) error {
			order = append(order, name)
			return call(ctx)
		}
	}
	if err := resilience.Chain(guard("a"), guard("b"))(t.Context(), fail); !errors.Is(err, errDown) ||
		len(order) != 2 || order[0] != "a" {
		t.Errorf("%v through %v", err, order)
	}
}
