package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// The bounds of a release.
const (
	releaseBatch   = 1000 // events in one request
	releaseTimeout = time.Minute
	releasePoll    = 200 * time.Millisecond
	maxReleased    = 10_000 // held events of one service that one command releases
)

// releasing says which held events are published now.
type releasing struct {
	service, eventType, heldFor string
	all                         bool
}

// released is what became of the released events of one service.
type released struct {
	Service   string   `json:"service"`
	Published []string `json:"published"` // their ids
	// Held are those that the broker did not accept again, or has not been asked to yet.
	Held   []string `json:"held"`
	Reason string   `json:"reason,omitempty"` // of the last one that is held
}

func releaseCommand(e *Env) *cobra.Command {
	var s releasing
	c := &cobra.Command{
		Use: "release [ID...]", Short: "Publish held events now, after the cause is repaired",
		Args: cobra.ArbitraryArgs,
		Long: "Publish held events now instead of at their time or never: those with the ids, or those " +
			"that all filters select.\nWhat the broker does not accept is held again. The command may " +
			"be repeated.",
		Example: "  " + e.App.Name + " relay release --held-for \"no route\"",
		RunE: func(c *cobra.Command, ids []string) error {
			return s.run(c.Context(), e, ids)
		},
	}
	c.Flags().StringVar(&s.service, "service", "", "only what this service has to publish")
	c.Flags().StringVar(&s.eventType, "type", "", "only events of this type")
	c.Flags().StringVar(&s.heldFor, "held-for", "", "only what is held for a reason with this text")
	c.Flags().BoolVar(&s.all, "all", false, "everything that is held")
	return c
}

func (s releasing) run(ctx context.Context, e *Env, ids []string) error {
	filtered := s.eventType+s.heldFor != ""
	switch {
	case s.service != "" && e.App.known(s.service) != nil:
		return usage(e.App.known(s.service))
	case len(ids) == 0 && s.service == "" && !filtered && !s.all:
		return Error{Code: ExitUsage, Err: errors.New("name ids, a filter such as --held-for, or --all"),
			Next: "see what is held: " + e.App.Command("relay held")}
	case len(ids) > 0 && (filtered || s.all):
		return usage(errors.New("name ids or filters, not both"))
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	client := e.Client()
	services := client.Services
	if s.service != "" {
		services = []string{s.service}
	}
	all, missing := admin.Collect(services, func(service string) ([]released, error) {
		return s.release(ctx, client.Service(service), service, ids)
	})
	published, held := 0, 0
	for _, r := range all {
		published, held = published+len(r.Published), held+len(r.Held)
	}
	err := e.Print(map[string]any{"released": all, "missing": missing}, func(t *Text) {
		for _, r := range all {
			t.Printf("%s: %d published, %d held", r.Service, len(r.Published), len(r.Held))
			if r.Reason != "" {
				t.Printf(": %s", r.Reason)
			}
			t.Printf("\n")
		}
	})
	switch {
	case err != nil:
	case held > 0:
		err = Error{Code: ExitProblems, Err: fmt.Errorf("%d events are still held", held),
			Next: "see: " + e.App.Command("relay held")}
	case published == 0 && len(missing) == 0:
		e.Notef("nothing that is held is selected")
	}
	return e.Partial(len(services)-len(missing), missing, err)
}

// release publishes the selected events of one service, and waits until the broker has accepted or
// refused each of them.
func (s releasing) release(ctx context.Context, service admin.Service, name string,
	ids []string) ([]released, error) {
	before, err := heldOf(ctx, service, maxReleased)
	if err != nil {
		return nil, err
	}
	chosen := map[string]admin.HeldEvent{}
	var order []string
	for _, h := range before {
		if h.ID != "" && (len(ids) == 0 || slices.Contains(ids, h.ID)) &&
			(s.eventType == "" || h.Type == s.eventType) && strings.Contains(h.Reason, s.heldFor) {
			chosen[h.ID] = h
			order = append(order, h.ID)
		}
	}
	if len(order) == 0 {
		return nil, nil
	}
	for batch := range slices.Chunk(order, releaseBatch) {
		if _, err := service.Replay(ctx, admin.ReplayRequest{IDs: batch}); err != nil {
			return nil, err
		}
	}
	for {
		now, err := heldOf(ctx, service, maxReleased)
		if err != nil {
			return nil, err
		}
		result, waits := released{Service: name, Published: []string{}, Held: []string{}}, false
		still := map[string]bool{}
		for _, h := range now {
			was, ours := chosen[h.ID]
			if !ours {
				continue
			}
			still[h.ID] = true
			result.Held, result.Reason = append(result.Held, h.ID), h.Reason
			waits = waits || h.Attempts == was.Attempts
		}
		for _, id := range order {
			if !still[id] {
				result.Published = append(result.Published, id)
			}
		}
		if !waits || !pause(ctx, releasePoll) {
			return []released{result}, nil
		}
	}
}
