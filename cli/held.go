package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// heldPage is how many held events are read at once.
const heldPage = 100

func heldCommand(e *Env) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "held", Short: "List the events that the broker did not accept, with the next command",
		Long: "List the events of all services that the broker did not accept. Those of kind refused " +
			"and unroutable are published\nagain at their time. Quarantined ones wait until the cause is " +
			"repaired and they are replayed.\n" +
			"Later events of the same subject wait for them; they are counted and not listed.",
		Example: "  " + e.App.Name + " relay held", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 {
				return usage(fmt.Errorf("--limit %d: must be 1 or more", limit))
			}
			client := e.Client()
			all, missing := admin.Collect(client.Services, func(service string) ([]admin.HeldEvent, error) {
				return heldOf(c.Context(), client.Service(service), limit)
			})
			document := map[string]any{"held": all, "missing": missing}
			err := e.Print(document, func(t *Text) { e.printHeld(t, all, len(missing), time.Now()) })
			return e.partial(missing, err)
		},
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many of each service, the oldest first")
	return c
}

// heldOf reads the pages of one service.
func heldOf(ctx context.Context, s admin.Service, limit int) (all []admin.HeldEvent, err error) {
	for after := int64(0); ; {
		page, err := s.Held(ctx, after, min(heldPage, limit-len(all)))
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < heldPage || len(all) >= limit {
			return all, nil
		}
		after = page[len(page)-1].Seq
	}
}

func (e *Env) printHeld(t *Text, all []admin.HeldEvent, missing int, now time.Time) {
	if len(all) == 0 {
		if missing == 0 {
			e.Notef("nothing is held")
		}
		return
	}
	t.Table("SERVICE\tKIND\tTYPE\tSUBJECT\tATTEMPTS\tDUE\tBEHIND\tREASON", func(row func(...any)) {
		for _, h := range all {
			line, _, _ := strings.Cut(h.Reason, "\n")
			row(h.Service, h.Kind, cmp.Or(h.Type, "-"), h.Subject, h.Attempts, dueIn(h.Due, now), h.Behind,
				line)
		}
	})
	waits := slices.IndexFunc(all, func(h admin.HeldEvent) bool { return h.Due == nil && h.ID != "" })
	if waits >= 0 {
		e.Notef("after the cause is repaired: %s", e.App.Command("relay release "+all[waits].ID))
	}
}
