package quadrilletest

import (
	"testing"
	"time"
)

// Timeout is how long WaitFor waits. It is long, since the machine may be busy; only a failing test
// waits that long.
const Timeout = 2 * time.Minute

// pollEvery is the interval in which a condition is evaluated.
const pollEvery = 10 * time.Millisecond

// reserve is what WaitFor leaves of the time of the whole test, so that it can report what it saw.
const reserve = 5 * time.Second

// WaitFor calls a condition until it returns true. After Timeout it fails the test with what the
// condition has seen last. It must be called from the goroutine of the test.
func WaitFor(t testing.TB, what string, condition func() (done bool, seen string)) {
	t.Helper()
	WaitAtMost(t, Timeout, what, condition)
}

// WaitAtMost is WaitFor with another bound.
func WaitAtMost(t testing.TB, bound time.Duration, what string,
	condition func() (done bool, seen string)) {
	t.Helper()
	if limited, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if end, ok := limited.Deadline(); ok {
			bound = max(0, min(bound, time.Until(end)-reserve))
		}
	}
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, seen := condition()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			if done, seen = condition(); !done { // a tick may be late
				t.Fatalf("not within %s: %s; last seen: %s", bound.Round(time.Second), what, seen)
			}
			return
		}
	}
}
