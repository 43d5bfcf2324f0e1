package admin

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// Step is an event or an outside call of a trace, with its cause and the services that handled it.
type Step struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	// Service published it; empty: no service of this choreography, such as a test event.
	Service     string          `json:"service"`
	Time        time.Time       `json:"time"`
	CausationID string          `json:"causation_id,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Handled     []HandledBy     `json:"handled"`
	Call        *Call           `json:"call,omitempty"` // nil: an event
}

// HandledBy is a service that has accepted an event; see Handled.
type HandledBy struct {
	Service   string    `json:"service"`
	At        time.Time `json:"at"`
	Unhandled string    `json:"unhandled,omitempty"`
}

// Trace is all that happened about one subject, in the order of time.
type Trace struct {
	Subject string `json:"subject"`
	Steps   []Step `json:"events"`
	// Missing are services that did not answer: what they published and handled is not in the trace.
	Missing []Missing `json:"missing,omitempty"`
	// Cut are services that have published more than the trace shows: their first 1000 events.
	Cut []string `json:"cut,omitempty"`
}

// maxTrace is how many events of one subject a service returns.
const maxTrace = 1000

// handling is an event that a service has handled.
type handling struct {
	Handled
	by string
}

// Trace collects the events of a subject from the outboxes and inboxes of all services.
func (c *Client) Trace(ctx context.Context, subject string) Trace {
	trace := Trace{Subject: subject, Steps: []Step{}}
	published, missing := Collect(c.Services, func(service string) ([]Step, error) {
		return c.published(ctx, service, subject)
	})
	byID := map[string]int{}
	of := map[string]int{} // how many of a service
	for _, step := range published {
		trace.add(byID, step)
		if of[step.Service]++; of[step.Service] == maxTrace {
			trace.Cut = append(trace.Cut, step.Service)
		}
	}
	// A cause that no outbox has is a test event: the inboxes have seen it.
	for _, step := range slices.Clone(trace.Steps) {
		if step.CausationID != "" {
			trace.add(byID, Step{ID: step.CausationID})
		}
	}
	ids := make([]string, len(trace.Steps))
	for i, step := range trace.Steps {
		ids[i] = step.ID
	}
	handled, unanswered := Collect(c.Services, func(service string) ([]handling, error) {
		if slices.ContainsFunc(missing, func(m Missing) bool { return m.Service == service }) {
			return nil, nil // it has been waited for once
		}
		return c.handledBy(ctx, service, ids)
	})
	trace.Missing = append(missing, unanswered...)
	for _, h := range handled {
		at, asked := byID[h.ID]
		if !asked {
			continue
		}
		step := &trace.Steps[at]
		step.Handled = append(step.Handled, HandledBy{Service: h.by, At: h.At,
			Unhandled: h.Unhandled})
		step.Type = h.Type
		if step.Time.IsZero() || step.Service == "" && h.At.Before(step.Time) {
			step.Time = h.At
		}
	}
	slices.SortStableFunc(trace.Steps, func(a, b Step) int { return a.Time.Compare(b.Time) })
	return trace
}

// add appends a step, unless it is known.
func (t *Trace) add(byID map[string]int, s Step) {
	if _, known := byID[s.ID]; !known {
		byID[s.ID] = len(t.Steps)
		t.Steps = append(t.Steps, s)
	}
}

func (c *Client) published(ctx context.Context, service, subject string) ([]Step, error) {
	history, err := c.Service(service).History(ctx, subject)
	steps := make([]Step, len(history))
	for i, e := range history {
		steps[i] = Step{ID: e.ID, Type: e.Type, Service: service, Time: e.Time,
			CausationID: e.CausationID, Data: e.Data, Call: e.Call}
	}
	return steps, err
}

func (c *Client) handledBy(ctx context.Context, service string, ids []string) ([]handling, error) {
	list, err := c.Service(service).Handled(ctx, ids)
	all := make([]handling, len(list))
	for i, h := range list {
		all[i] = handling{h, service}
	}
	return all, err
}
