package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/tally"
)

// made is the error of a call that has reached the peer and costs no attempt.
type made struct{ error }

func (made) Made() bool      { return true }
func (m made) Unwrap() error { return m.error }

// A call that a breaker has not let through is told apart from one that failed, and one that was
// given up from one that is made again.
func TestCallsAreCountedByResult(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	for want, errs := range map[string][]error{
		callAnswered: {nil},
		callRefused:  {outsideError{Permanent(no)}},
		callNotMade:  {outsideError{RetryAfter(no, time.Second)}},
		callFailed:   {no, outsideError{no}, outsideError{made{RetryAfter(no, time.Second)}}},
	} {
		c := newCounters(&handlers{calls: []string{"card.charge"}})
		for _, err := range errs {
			c.call("card.charge", err)
		}
		for key, n := range c.calls.Counts() {
			if expected := int64(len(errs)); key == (tally.Key{Type: "card.charge", Result: want}) &&
				n != expected || key.Result != want && n != 0 {
				t.Errorf("%s: %v is %d", want, key, n)
			}
		}
	}
}

// The sums that Stats has agree with the counters by type.
func TestEventsAreCountedOnce(t *testing.T) {
	t.Parallel()
	c := newCounters(&handlers{reactions: []string{"a"}})
	for _, result := range []string{eventHandled, eventDuplicate, eventDelayed, eventParked} {
		c.event("a", result)
		c.event("unheard of", result)
	}
	for _, result := range []string{eventHandled, eventDuplicate, eventDelayed, eventParked} {
		if n := c.events.Total(result); n != 2 {
			t.Errorf("%d are %s", n, result)
		}
	}
	for key, n := range c.events.Counts() {
		if n != 1 {
			t.Errorf("%v is %d", key, n)
		}
	}
}
