package outbox

import (
	"sync/atomic"
	"time"
)

const (
	unheardInterval = 10 * time.Minute // between two log lines about one type
	maxUnheard      = 100              // types that log lines are about
)

// unheard counts what was published while nobody was bound for it.
type unheard struct {
	total atomic.Int64
	types map[string]*unheardType // of the leader's goroutine
}

type unheardType struct {
	events int64 // since the last line
	told   time.Time
}

func (r *Relay) mandatory(eventType string) bool { return r.Mandatory != nil && r.Mandatory(eventType) }

// unheardOf notes an event that no queue has taken. It says so for each type, from time to time.
func (r *Relay) unheardOf(eventType string) {
	r.unheard.total.Add(1)
	if r.Optional != nil && r.Optional(eventType) {
		return
	}
	if r.unheard.types == nil {
		r.unheard.types = map[string]*unheardType{}
	}
	t := r.unheard.types[eventType]
	if t == nil {
		if len(r.unheard.types) >= maxUnheard {
			return
		}
		t = &unheardType{}
		r.unheard.types[eventType] = t
	}
	t.events++
	if time.Since(t.told) < unheardInterval {
		return
	}
	r.Log.Warn().Str("type", eventType).Int64("events", t.events).Str("exchange", r.Exchange).
		Msg("events were published while no queue was bound for their type, and nobody has them: bind a queue and republish them, or make the type mandatory so that they wait")
	t.events, t.told = 0, time.Now()
}
