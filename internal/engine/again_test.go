package engine

import (
	"errors"
	"testing"
	"time"
)

// What waited and fails again waits longer, waits without an attempt, or is parked.
func TestAgain(t *testing.T) {
	t.Parallel()
	bounds := Bounds{CallPatience: callPatience, DatabasePatience: patience}
	fault, outside := errors.New("no"), outsideError{errors.New("503")}
	away, never := outsideError{down{fault}}, outsideError{RetryAfter(fault, 0)}
	const last = maxAttempts - 1
	for name, c := range map[string]struct {
		err           error
		attempts      int
		age           time.Duration
		spent, parked bool
	}{
		"a fault":                      {fault, 1, time.Minute, true, false},
		"the last attempt":             {fault, last, time.Minute, true, true},
		"permanent":                    {Permanent(fault), 1, time.Minute, true, true},
		"its own pause":                {RetryAfter(fault, time.Second), last, patience, false, false},
		"a lock":                       {state("55P03"), last, time.Minute, false, false},
		"a lock that is held for long": {state("55P03"), 1, patience, true, false},
		"a lock to the last":           {state("55P03"), last, patience, true, true},
		"a peer that fails":            {outside, last, callPatience - 1, true, false},
		"a peer that fails for long":   {outside, last, callPatience, true, true},
		"a peer that is down":          {away, last, callPatience - 1, false, false},
		"a peer that is down for long": {away, last, callPatience, true, true},
		"a call that is not made":      {never, last, patience, false, false},
	} {
		got := defaults.Retry.again(c.err, c.attempts, c.age, bounds)
		if got.spent != c.spent || got.parked != c.parked {
			t.Errorf("%s: %+v, want spent %t, parked %t", name, got, c.spent, c.parked)
		}
	}
}
