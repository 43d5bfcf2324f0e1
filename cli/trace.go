package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
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
	Handled     []Handled       `json:"handled"`
	Call        *admin.Call     `json:"call,omitempty"` // nil: an event
}

// Handled is a service that has handled an event, and the time.
type Handled struct {
	Service string    `json:"service"`
	At      time.Time `json:"at"`
}

// Trace is all that happened about one subject, in the order of time.
type Trace struct {
	Subject string `json:"subject"`
	Steps   []Step `json:"events"`
	// Missing are services that did not answer: what they published and handled is not in the trace.
	Missing []Missing `json:"missing,omitempty"`
	// Cut are services that have published more than the trace shows.
	Cut []string `json:"cut,omitempty"`
}

// maxTrace is how many events of one subject a service returns.
const maxTrace = 1000

func (e *Env) trace() *cobra.Command {
	return &cobra.Command{
		Use:     "trace SUBJECT",
		Short:   "Show the events of a subject, such as an order, as a tree by causation",
		Example: "  " + e.App.Name + " trace 0190a0e0-0000-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			history, err := e.Trace(c.Context(), args[0])
			if err != nil {
				return err
			}
			if len(history.Steps) == 0 && len(history.Missing) == 0 {
				return Error{Code: ExitNotFound, Err: fmt.Errorf("no service has published anything about %q",
					args[0])}
			}
			return e.partial(history.Missing, e.Print(history, func(t *Text) {
				history.Tree(t, "")
				for _, service := range history.Cut {
					t.Printf("%s has published more about it: these are its first %d events\n", service, maxTrace)
				}
			}))
		},
	}
}

// Trace collects the events of a subject from the outboxes and inboxes of all services.
func (e *Env) Trace(ctx context.Context, subject string) (Trace, error) {
	history := Trace{Subject: subject, Steps: []Step{}}
	byID := map[string]int{}
	var ids []string
	add := func(s Step) {
		if _, known := byID[s.ID]; !known {
			byID[s.ID] = len(history.Steps)
			ids = append(ids, s.ID)
			history.Steps = append(history.Steps, s)
		}
	}
	published, missing := collect(e, func(service string) (published []Step, err error) {
		err = e.Call(ctx, service, "GET", "/admin/history/"+url.PathEscape(subject), nil, nil, &published)
		for i := range published {
			published[i].Service = service
		}
		return published, err
	})
	of := map[string]int{}
	for _, step := range published {
		add(step)
		if of[step.Service]++; of[step.Service] == maxTrace {
			history.Cut = append(history.Cut, step.Service)
		}
	}
	// A cause that no outbox has is a test event: the inboxes have seen it.
	for _, step := range slices.Clone(history.Steps) {
		if step.CausationID != "" {
			add(Step{ID: step.CausationID})
		}
	}
	away := map[string]bool{}
	for _, m := range missing {
		away[m.Service] = true
	}
	handled, unanswered := collect(e, func(service string) ([]handling, error) {
		if away[service] {
			return nil, nil // it has been waited for once
		}
		return e.handledBy(ctx, service, ids)
	})
	history.Missing = append(missing, unanswered...)
	for _, h := range handled {
		at, asked := byID[h.ID]
		if !asked {
			continue
		}
		step := &history.Steps[at]
		step.Handled = append(step.Handled, Handled{Service: h.Service, At: h.At})
		step.Type = h.Type
		if step.Time.IsZero() || step.Service == "" && h.At.Before(step.Time) {
			step.Time = h.At
		}
	}
	slices.SortStableFunc(history.Steps, func(a, b Step) int { return a.Time.Compare(b.Time) })
	return history, nil
}

// maxHandledIDs is how many ids one request may name.
const maxHandledIDs = 1000

// handling is an event that a service has handled.
type handling struct {
	Service string
	admin.Handled
}

func (e *Env) handledBy(ctx context.Context, service string, ids []string) (all []handling,
	err error) {
	for chunk := range slices.Chunk(ids, maxHandledIDs) {
		var list []admin.Handled
		if err := e.Call(ctx, service, "POST", "/admin/handled", nil, map[string]any{"ids": chunk},
			&list); err != nil {
			return nil, err
		}
		for _, h := range list {
			all = append(all, handling{service, h})
		}
	}
	return all, nil
}

// Tree writes the trace as a tree after an indent: under each event those that it caused. Each
// event is written once, also when foreign events cause each other in a circle.
func (s Trace) Tree(t *Text, indent string) {
	if len(s.Steps) == 0 {
		return
	}
	p := plant{t: t, began: s.Steps[0].Time, children: map[string][]Step{}, written: map[string]bool{}}
	known := map[string]bool{}
	for _, step := range s.Steps {
		known[step.ID] = true
	}
	var roots []Step
	for _, step := range s.Steps {
		if step.CausationID == "" || !known[step.CausationID] {
			roots = append(roots, step)
		} else {
			p.children[step.CausationID] = append(p.children[step.CausationID], step)
		}
	}
	t.Printf("%s%s\n", indent, s.Subject)
	p.branches(roots, indent)
	for _, step := range s.Steps { // what is left is in a circle
		if !p.written[step.ID] {
			p.branches([]Step{step}, indent)
		}
	}
}

// plant is a tree that is being written.
type plant struct {
	t        *Text
	began    time.Time
	children map[string][]Step
	written  map[string]bool
}

func (p *plant) branches(steps []Step, indent string) {
	for i, step := range steps {
		if p.written[step.ID] {
			continue
		}
		p.written[step.ID] = true
		twig, next := "├─ ", "│  "
		if i == len(steps)-1 {
			twig, next = "└─ ", "   "
		}
		line := fmt.Sprintf("%-34s %s", indent+twig+step.Type, step.note(p.began))
		p.t.Printf("%s\n", strings.TrimRight(line, " "))
		p.branches(p.children[step.ID], indent+next)
	}
}

// note names the publisher and the time of an event, its reason if it has one, and its handlers.
func (s Step) note(began time.Time) string {
	published := s.Service
	if published == "" {
		published = "test event"
	}
	note := fmt.Sprintf("%-10s %s", published, after(s.Time.Sub(began)))
	var why struct{ Reason string }
	if json.Unmarshal(s.Data, &why) == nil && why.Reason != "" {
		note += "  (" + why.Reason + ")"
	}
	if s.Call != nil {
		return note + "  " + callNote(s.Call, began)
	}
	var by []string
	for _, h := range s.Handled {
		by = append(by, h.Service+" "+after(h.At.Sub(began)))
	}
	if len(by) > 0 {
		note += "  → " + strings.Join(by, ", ")
	}
	return note
}

// callNote returns whether a call was answered, or what it waits for.
func callNote(c *admin.Call, began time.Time) string {
	failed := ""
	if c.Attempts > 0 {
		failed = fmt.Sprintf(" after %d failed attempts", c.Attempts)
	}
	switch {
	case c.AnsweredAt != nil && c.Answer == "":
		return "call, made " + after(c.AnsweredAt.Sub(began)) + failed
	case c.AnsweredAt != nil:
		return "call, answered " + c.Answer + " " + after(c.AnsweredAt.Sub(began)) + failed
	case c.Parked:
		return "call, parked" + failed + ": " + c.Reason
	case c.Reason != "":
		return "call, waits" + failed + ": " + c.Reason
	}
	return "call, under way"
}

func after(d time.Duration) string {
	return fmt.Sprintf("+%dms", d.Round(time.Millisecond).Milliseconds())
}
