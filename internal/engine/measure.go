package engine

import (
	"slices"
	"sync/atomic"

	"github.com/quadrille-go/quadrille/internal/tally"
)

// The results of events.
const (
	eventHandled   = "handled"
	eventDuplicate = "duplicate"
	eventDelayed   = "delayed" // it failed and waits for its next attempt
	eventParked    = "parked"
)

// The results of outside calls.
const (
	callAnswered = "answered"
	callFailed   = "failed"    // it is made again, unless it was the last attempt
	callRefused  = "permanent" // its handler has given it up
	callNotMade  = "not_made"  // a breaker or a limit was in the way
)

// counters are what an engine counts.
type counters struct {
	dropped, batches atomic.Int64
	events, calls    tally.Table
	handling, lag    tally.Histogram
}

// newCounters returns the counters of a service: for each type that it knows, whether it has a
// handler or not.
func newCounters(hs *handlers) *counters {
	types := slices.Concat(hs.reactions, hs.calls, hs.service.Handles())
	return &counters{
		events: tally.NewTable(types, eventHandled, eventDuplicate, eventDelayed, eventParked),
		calls:  tally.NewTable(hs.calls, callAnswered, callFailed, callRefused, callNotMade),
	}
}

// event counts one event.
func (c *counters) event(eventType, result string) { c.events.Add(eventType, result, 1) }

// call counts a call that has ended with err.
func (c *counters) call(callType string, err error) {
	result := callFailed
	_, waits := retryPause(err, 0, MaxDuration)
	switch {
	case err == nil:
		result = callAnswered
	case isPermanent(err):
		result = callRefused
	case waits && !wasMade(err):
		result = callNotMade
	}
	c.calls.Add(callType, result, 1)
}

// Measures are what an engine has counted by type, and its latencies.
type Measures struct {
	Events   map[tally.Key]int64
	Calls    map[tally.Key]int64
	Handling tally.Distribution // from a delivery to the end of its transaction
	Lag      tally.Distribution // from an event to the end of its transaction
}

// Measures returns what was counted.
func (e *Engine) Measures() Measures {
	s := e.stats
	return Measures{Events: s.events.Counts(), Calls: s.calls.Counts(),
		Handling: s.handling.Distribution(), Lag: s.lag.Distribution()}
}
