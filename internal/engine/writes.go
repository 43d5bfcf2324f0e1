package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/topology"
)

// writes are the effects of a batch as what is written of them.
type writes struct {
	publish   []events.Event
	deadlines []inbox.Deadline
	requests  []inbox.Pending
}

func (w writes) empty() bool { return len(w.publish)+len(w.deadlines)+len(w.requests) == 0 }

// writesOf decides what the effects of a batch write, and refuses what the topology does not
// declare.
func (hs *handlers) writesOf(results []Result, now time.Time) (w writes, err error) {
	for _, r := range results {
		for _, d := range r.Effects.Schedule {
			if err := hs.checkDeadline(d); err != nil {
				return w, err
			}
			e := hs.caused(r.Cause, now, d.Payload)
			e.ID, e.CausationID = "", ""
			w.deadlines = append(w.deadlines, inbox.Deadline{After: max(0, d.After), Event: e})
		}
		for _, p := range r.Effects.Request {
			request, err := hs.request(r.Cause, now, p)
			if err != nil {
				return w, err
			}
			w.requests = append(w.requests, request)
		}
		for _, p := range r.Effects.Publish {
			if err := hs.checkPublished(r.Cause, p); err != nil {
				return w, err
			}
			w.publish = append(w.publish, hs.caused(r.Cause, now, p))
		}
	}
	return w, nil
}

// caused returns the event that a payload becomes because of another one.
func (hs *handlers) caused(cause events.Event, now time.Time, p events.Payload) events.Event {
	e := events.Cause(cause, topology.SourceOf(hs.service.Name), now, p)
	e.SchemaPrefix = hs.topology.SchemaPrefix()
	return e
}

// request returns the row of a call. Its key is the idempotency key of the call.
func (hs *handlers) request(cause events.Event, now time.Time,
	p events.Payload) (inbox.Pending, error) {
	name, eventType := hs.service.Name, p.EventType()
	switch {
	case !hs.isCall(eventType):
		return inbox.Pending{}, Permanent(fmt.Errorf("%s requests %s, for which it has no Call handler",
			name, eventType))
	case !hs.service.MayRequest(causeType(cause), eventType):
		return inbox.Pending{}, Permanent(fmt.Errorf("%s may not request %s%s: its topology does not "+
			"declare it", name, eventType, on(cause)))
	}
	e := hs.caused(cause, now, p)
	record, err := e.Record()
	if err != nil {
		return inbox.Pending{}, err
	}
	return inbox.Pending{Owner: name, Key: e.ID, Kind: inbox.Call, Type: eventType,
		Attributes: inbox.EnvelopeOf(record), Body: bodyOf(record.Data)}, nil
}

// checkDeadline refuses a deadline that would never be delivered.
func (hs *handlers) checkDeadline(d Deadline) error {
	name, eventType := hs.service.Name, d.Payload.EventType()
	if !hs.reacts(eventType) {
		return Permanent(fmt.Errorf("%s sets a deadline %s, to which it has no reaction", name,
			eventType))
	}
	if _, named := hs.service.Command(eventType); !named {
		return Permanent(fmt.Errorf("%s sets a deadline %s: give the command of its topology that it "+
			"carries this type", name, eventType))
	}
	return nil
}

// checkPublished refuses an event that the topology does not declare for its cause or, without one,
// for a command.
func (hs *handlers) checkPublished(cause events.Event, p events.Payload) error {
	name, eventType := hs.service.Name, p.EventType()
	switch {
	case !slices.Contains(hs.service.Publishes(), eventType):
		return Permanent(fmt.Errorf("%s may not publish %s: its topology does not declare it", name,
			eventType))
	case cause.Data == nil && !hs.service.MayPublishFirst(eventType):
		return Permanent(fmt.Errorf("%s may not publish %s without a cause: no command of its topology "+
			"declares it", name, eventType))
	case cause.Data != nil && !hs.service.MayPublish(causeType(cause), eventType):
		return Permanent(fmt.Errorf("%s may not publish %s%s: its topology does not declare it", name,
			eventType, on(cause)))
	}
	return nil
}

func causeType(cause events.Event) string {
	if cause.Data == nil {
		return ""
	}
	return cause.Data.EventType()
}

// on names a cause in an error.
func on(cause events.Event) string {
	if cause.Data == nil {
		return ""
	}
	return " on " + cause.Data.EventType()
}
