package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// maxCauses bounds a chain of causes, which foreign events may close to a circle.
const maxCauses = 1000

// Why returns an event or a call with what caused it, the first cause first. What was published
// about the same subject is read at once; a cause of another subject is looked for in the history
// of every service.
func (c *Client) Why(ctx context.Context, id string) Trace {
	chain := Trace{Steps: []Step{}}
	known, read := map[string]Step{}, map[string]bool{}
	for id != "" && len(chain.Steps) < maxCauses {
		step, ok := known[id]
		if !ok {
			event, missing := c.find(ctx, id)
			if event == nil {
				chain.Missing = Union(chain.Missing, missing)
				break
			}
			if chain.Subject == "" {
				chain.Subject = event.Subject
			}
			if !read[event.Subject] {
				read[event.Subject] = true
				about := c.Trace(ctx, event.Subject)
				chain.Missing = Union(chain.Missing, about.Missing)
				for _, s := range about.Steps {
					known[s.ID] = s
				}
			}
			if step, ok = known[id]; !ok { // it is beyond what a trace shows
				step = event.step()
			}
		}
		if slices.ContainsFunc(chain.Steps, func(s Step) bool { return s.ID == id }) {
			break
		}
		chain.Steps = append(chain.Steps, step)
		id = step.CausationID
	}
	slices.Reverse(chain.Steps)
	return chain
}

// located is an event with the service that has it.
type located struct {
	Event
	service string
}

func (p located) step() Step {
	return Step{ID: p.ID, Type: p.Type, Service: p.service, Time: p.Time,
		CausationID: p.CausationID, Data: p.Data, Call: p.Call, Handled: []HandledBy{}}
}

// find asks all services for an event; nil: none that answers has it.
func (c *Client) find(ctx context.Context, id string) (*located, []Missing) {
	all, missing := Collect(c.Services, func(service string) ([]located, error) {
		event, err := c.Service(service).Event(ctx, id)
		if p, ok := errors.AsType[Problem](err); ok && p.Status == http.StatusNotFound {
			return nil, nil
		}
		return []located{{event, service}}, err
	})
	if len(all) == 0 {
		return nil, missing
	}
	return &all[0], nil
}
