package admin

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"time"
)

// Place is where something waits.
type Place string

// The places where an event or a call waits, from its publisher to its effect.
const (
	InOutbox   Place = "outbox"   // it is committed, and not published yet
	Held       Place = "held"     // the broker did not accept it
	InQueue    Place = "queue"    // it is published, and a subscriber has not handled it
	InRetry    Place = "retry"    // its handler failed and will run again
	OnDeadline Place = "deadline" // a message of the service to itself, at its time
	InCall     Place = "call"     // an outside call that has no answer yet
	OnRelease  Place = "unknown"  // only another release of the service handles it
	IsParked   Place = "parked"   // it waits for a person
)

// Waiting is an event, a deadline or a call about a subject that waits.
type Waiting struct {
	// Service is where it waits; a queue belongs to the service that reads it. It is set by Client.
	Service string `json:"service,omitempty"`
	Place   Place  `json:"place"`
	ID      string `json:"id"`
	Type    string `json:"type"`
	// Since is when it began to wait, by the clock of its database.
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"` // that failed
	Reason   string    `json:"reason,omitempty"`
	// Due is when it is tried again, or delivered; nil: after something else has happened.
	Due *time.Time `json:"due,omitempty"`
}

// Whereabouts say where a subject, such as an order, is.
type Whereabouts struct {
	Subject string `json:"subject"`
	// Last is the last event about it; nil: no service that answers has published anything.
	Last *Step `json:"last"`
	// Ended is the event that ended it; nil: it has not ended, or nobody knows which events end it.
	// A deadline that waits nevertheless then does nothing.
	Ended   *Step     `json:"ended,omitempty"`
	Waiting []Waiting `json:"waiting"` // the longest first; empty: nothing is under way
	Missing []Missing `json:"missing"` // services that did not answer
}

// Where collects from all services what waits about a subject. An event that is published and that
// a subscriber of its type has not accepted is in the queue of that service; the topology knows the
// subscribers. Of a service that does not answer, the last event for it is taken to be in its
// queue, which the reason of that event says. The events of the types ends end a subject.
func (c *Client) Where(ctx context.Context, subject string,
	subscribers func(eventType string) []string, ends ...string) Whereabouts {
	trace := c.Trace(ctx, subject)
	w := Whereabouts{Subject: subject, Missing: trace.Missing}
	waiting, missing := Collect(c.Services, func(service string) ([]Waiting, error) {
		if away(trace.Missing, service) {
			return nil, nil // it has been waited for once
		}
		return c.Service(service).Waiting(ctx, subject)
	})
	w.Missing = append(w.Missing, missing...)
	if n := len(trace.Steps); n > 0 {
		w.Last = &trace.Steps[n-1]
	}
	if n := slices.IndexFunc(trace.Steps, func(s Step) bool {
		return s.Service != "" && slices.Contains(ends, s.Type)
	}); n >= 0 {
		w.Ended = &trace.Steps[n]
	}
	w.Waiting = slices.DeleteFunc(waiting, func(x Waiting) bool {
		return x.Place == InOutbox && wasHandled(trace, x.ID) // it left the outbox a moment ago
	})
	w.addQueued(trace, subscribers)
	slices.SortStableFunc(w.Waiting, func(a, b Waiting) int { return a.Since.Compare(b.Since) })
	return w
}

// addQueued adds the published events of a trace that wait in the queue of a subscriber.
func (w *Whereabouts) addQueued(trace Trace, subscribers func(eventType string) []string) {
	last := map[string]Waiting{} // by service that does not answer
	for _, s := range trace.Steps {
		if s.Call != nil || s.Service == "" || slices.ContainsFunc(w.Waiting, func(x Waiting) bool {
			return x.ID == s.ID && (x.Place == InOutbox || x.Place == Held)
		}) {
			continue
		}
		for _, service := range subscribers(s.Type) {
			queued := Waiting{Service: service, Place: InQueue, ID: s.ID, Type: s.Type, Since: s.Time}
			accepted := slices.ContainsFunc(s.Handled, func(h HandledBy) bool {
				return h.Service == service
			})
			switch {
			case away(w.Missing, service):
				queued.Reason = service + " does not answer; it may have handled this already"
				last[service] = queued
			case !accepted:
				w.Waiting = append(w.Waiting, queued)
			}
		}
	}
	w.Waiting = slices.AppendSeq(w.Waiting, maps.Values(last))
}

func away(missing []Missing, service string) bool {
	return slices.ContainsFunc(missing, func(m Missing) bool { return m.Service == service })
}

// wasHandled reports whether some service has handled an event.
func wasHandled(t Trace, id string) bool {
	return slices.ContainsFunc(t.Steps, func(s Step) bool { return s.ID == id && len(s.Handled) > 0 })
}

func (s remote) Waiting(ctx context.Context, subject string) (list []Waiting, err error) {
	err = s.get(ctx, "waiting/"+url.PathEscape(subject), &list)
	for i := range list {
		list[i].Service = s.name
	}
	return list, err
}
