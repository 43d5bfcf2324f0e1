package outbox

import (
	"sync/atomic"
	"time"
)

const (
	unroutedInterval = 10 * time.Minute // between two log lines about one type
	maxUnroutedTypes = 100              // types that have log lines; further ones are only counted
)

// unrouted counts events that were published while no queue was bound for their type.
type unrouted struct {
	total atomic.Int64
	types map[string]*unroutedType // only the goroutine of the term uses it
}

type unroutedType struct {
	events   int64 // since the last log line
	loggedAt time.Time
}

func (r *Relay) mandatory(eventType string) bool {
	return r.Mandatory != nil &&
		r.Mandatory(eventType)
}

// countUnrouted counts an event that no queue has received. It logs at most one line for each type
// in unroutedInterval, and none for optional types.
func (r *Relay) countUnrouted(eventType string) {
	r.unrouted.total.Add(1)
	if r.Optional != nil && r.Optional(eventType) {
		return
	}
	if r.unrouted.types == nil {
		r.unrouted.types = map[string]*unroutedType{}
	}
	t := r.unrouted.types[eventType]
	if t == nil {
		if len(r.unrouted.types) >= maxUnroutedTypes {
			return
		}
		t = &unroutedType{}
		r.unrouted.types[eventType] = t
	}
	t.events++
	if time.Since(t.loggedAt) < unroutedInterval {
		return
	}
	r.Log.Warn().Str("type", eventType).Int64("events", t.events).Str("exchange", r.Exchange).
		Msg("events were published while no queue was bound for their type, and no consumer received " +
			"them: bind a queue and replay them, or make the type mandatory so that they are held")
	t.events, t.loggedAt = 0, time.Now()
}
