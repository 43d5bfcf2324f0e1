package consumer

import (
	"slices"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
)

// Effects are what a reaction wants to happen. All of them are written in the transaction of the
// reaction: they happen if, and only if, it commits. The zero value is no effect.
type Effects struct {
	Publish  []events.Payload // events for other services, through the outbox
	Schedule []Deadline       // messages to the service's own reactions, later
	Request  []events.Payload // calls to the outside; the Call handler of the type makes them
}

// Deadline is a payload that is delivered to the service's own reactions after a time, once per
// type and subject: a deadline that is set again moves. The time runs by the database's clock, so
// it does not matter whose clock is wrong. Less than zero is zero.
type Deadline struct {
	After   time.Duration
	Payload events.Payload
}

// Publish returns the effect that these events are published.
func Publish(payloads ...events.Payload) Effects { return Effects{Publish: payloads} }

// Schedule returns the effect that a payload is delivered to the service's own reactions later.
func Schedule(after time.Duration, payload events.Payload) Effects {
	return Effects{Schedule: []Deadline{{After: after, Payload: payload}}}
}

// Request returns the effect that the outside is called, once for each request. The call is made
// after the commit, see Call; its answer is delivered to the service's own reactions.
func Request(requests ...events.Payload) Effects { return Effects{Request: requests} }

// And returns both effects.
func (e Effects) And(others ...Effects) Effects {
	for _, o := range others {
		e.Publish = slices.Concat(e.Publish, o.Publish)
		e.Schedule = slices.Concat(e.Schedule, o.Schedule)
		e.Request = slices.Concat(e.Request, o.Request)
	}
	return e
}

// Result is what the reaction to one event wants to happen.
type Result struct {
	Cause   events.Event
	Effects Effects
}

// compile returns the effects as the engine sees them.
func (e Effects) compile() engine.Effects {
	c := engine.Effects{Publish: e.Publish, Request: e.Request}
	for _, d := range e.Schedule {
		c.Schedule = append(c.Schedule, engine.Deadline(d))
	}
	return c
}

func compiledResults(results []Result) []engine.Result {
	all := make([]engine.Result, len(results))
	for i, r := range results {
		all[i] = engine.Result{Cause: r.Cause, Effects: r.Effects.compile()}
	}
	return all
}
