package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// The bounds of a repair.
const (
	repairBatch  = 500 // events in one request
	redriveRate  = 500 // events a second, unless --rate says otherwise
	progressFrom = 100 // events from which on progress is shown
)

// selection says which of the parked events a repair is about.
type selection struct {
	ids                                    []string
	service, eventType, subject, parkedFor string
	all                                    bool
	limit                                  int
}

func (s *selection) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.service, "service", "", "only what this service has parked")
	c.Flags().StringVar(&s.eventType, "type", "", "only events of this type")
	c.Flags().StringVar(&s.subject, "subject", "", "only events about this subject, such as an order")
	c.Flags().StringVar(&s.parkedFor, "parked-for", "",
		"only what is parked for a reason with this text")
	c.Flags().BoolVar(&s.all, "all", false, "everything that is parked")
	c.Flags().IntVar(&s.limit, "limit", 0, "at most so many, the oldest first (default: all)")
}

// validate refuses a selection that is about nothing: forgotten arguments must not repair all.
func (s *selection) validate(app App) error {
	filtered := s.eventType+s.subject+s.parkedFor != ""
	switch {
	case s.limit < 0:
		return usage(fmt.Errorf("--limit %d: must not be negative", s.limit))
	case s.service != "" && app.known(s.service) != nil:
		return usage(app.known(s.service))
	case len(s.ids) == 0 && s.service == "" && !filtered && !s.all:
		return Error{Code: ExitUsage, Err: errors.New("name ids, a filter such as --type, or --all"),
			Next: "see what is parked: " + app.Command("parked groups")}
	case len(s.ids) > 0 && (filtered || s.all):
		return usage(errors.New("name ids or filters, not both"))
	}
	return nil
}

// selects reports whether an event is meant.
func (s *selection) selects(p admin.Parked) bool {
	return (len(s.ids) == 0 || slices.Contains(s.ids, p.ID)) &&
		(s.service == "" || p.Service == s.service) &&
		(s.eventType == "" || p.Type == s.eventType) &&
		(s.subject == "" || p.Subject == s.subject) && strings.Contains(p.Reason, s.parkedFor)
}

// find lists the selected events of all services, the oldest first. It is an error if no service
// has parked one of the ids.
func (s *selection) find(ctx context.Context, e *Env) (found []admin.Parked,
	missing []admin.Missing, err error) {
	if err := s.validate(e.App); err != nil {
		return nil, nil, err
	}
	list := e.Client().Parked(ctx, 0)
	for _, p := range list.Parked {
		if s.selects(p) {
			found = append(found, p)
		}
	}
	for _, id := range s.ids {
		if !slices.ContainsFunc(found, func(p admin.Parked) bool { return p.ID == id }) &&
			len(list.Missing) == 0 {
			return nil, nil, notParked(e, id, nil)
		}
	}
	slices.SortStableFunc(found, func(a, b admin.Parked) int {
		return a.CreatedAt.Compare(b.CreatedAt)
	})
	if s.limit > 0 {
		found = found[:min(s.limit, len(found))]
	}
	return found, list.Missing, nil
}

// repairs is the result of a redrive or a discard.
type repairs struct {
	Repaired []admin.Repaired `json:"repaired"` // by service
	Missing  []admin.Missing  `json:"missing"`
}

// add joins what a batch has done to what the batches before did in the same service.
func (r *repairs) add(one admin.Repaired) {
	i := slices.IndexFunc(r.Repaired, func(x admin.Repaired) bool { return x.Service == one.Service })
	if i < 0 {
		r.Repaired = append(r.Repaired, one)
		return
	}
	all := &r.Repaired[i]
	all.Done, all.Evidence = append(all.Done, one.Done...), append(all.Evidence, one.Evidence...)
	all.Absent = append(all.Absent, one.Absent...)
}

// repair sends the selected events to their services, in batches, at most rate of them a second.
// What an error or Ctrl-C interrupts is done by the same command again.
func repair(ctx context.Context, e *Env, found []admin.Parked, rate int,
	send func(service string, ids []string) (admin.Repaired, error)) (done repairs, err error) {
	done = repairs{Repaired: []admin.Repaired{}, Missing: []admin.Missing{}}
	size := min(repairBatch, rate)
	for n, batch := range slices.Collect(slices.Chunk(found, size)) {
		if n > 0 && !pause(ctx, time.Duration(size)*time.Second/time.Duration(rate)) {
			return done, fmt.Errorf("after %d of %d events: %w", n*size, len(found), ctx.Err())
		}
		ids := map[string][]string{}
		for _, p := range batch {
			ids[p.Service] = append(ids[p.Service], p.ID)
		}
		for _, service := range slices.Sorted(maps.Keys(ids)) {
			r, err := send(service, ids[service])
			if err != nil {
				return done, fmt.Errorf("after %d of %d events: %w", n*size, len(found), err)
			}
			done.add(r)
		}
		if len(found) >= progressFrom {
			e.Notef("%d of %d", min((n+1)*size, len(found)), len(found))
		}
	}
	return done, nil
}

// print writes what was done, and what could not be.
func (r repairs) print(e *Env, t *Text, verb string) {
	for _, s := range r.Repaired {
		t.Printf("%s: %d %s", s.Service, len(s.Done), verb)
		if n := len(s.Evidence); n > 0 {
			t.Printf(", %d are malformed or contradictory and can only be discarded", n)
		}
		if n := len(s.Absent); n > 0 {
			t.Printf(", %d were repaired by somebody else", n)
		}
		t.Printf("\n")
	}
	if len(r.Repaired) == 0 {
		e.Notef("nothing that is parked is selected")
	}
}

// pause waits, and reports false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// operatorName is who runs this command, for the record: the user and the machine.
func operatorName() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname() // without one the name must do
	return strings.TrimSuffix(cmp.Or(name, "somebody")+"@"+host, "@")
}
