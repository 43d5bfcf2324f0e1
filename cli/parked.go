package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

func parkedCommand(e *Env) *cobra.Command {
	group := &cobra.Command{Use: "parked", Short: "Events that wait for a person"}
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List them, of all services", Example: "  " + e.App.Name +
			" parked list -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage(fmt.Errorf("--limit %d: must not be negative", limit))
			}
			all := e.Client().Parked(c.Context(), limit)
			if len(all.More) > 0 {
				e.Notef("more is parked at %s: use a greater --limit, or 0 for all",
					strings.Join(all.More, ", "))
			}
			return e.partial(all.Missing, e.Print(all, func(t *Text) { printParked(e, t, all) }))
		},
	}
	list.Flags().IntVar(&limit, "limit", 0, "at most so many of each service (default: all)")
	show := &cobra.Command{
		Use: "show ID", Short: "Show one with its envelope and its bytes", Args: cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked show sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f0",
		RunE: func(c *cobra.Command, args []string) error {
			return showParked(c.Context(), e, args[0])
		},
	}
	try := &cobra.Command{
		Use: "dry-run ID", Short: "Handle one, show what would happen, and roll it back",
		Args:    cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked dry-run 0190b1c2-7d3e-7f00-8000-000000000001",
		RunE: func(c *cobra.Command, args []string) error {
			return tryParked(c.Context(), e, args[0])
		},
	}
	group.AddCommand(list, groupsCommand(e), show, try, redriveCommand(e), discardCommand(e),
		repairsCommand(e))
	return group
}

func printParked(e *Env, t *Text, all admin.ParkedList) {
	if len(all.Parked) == 0 {
		if len(all.Missing) == 0 {
			e.Notef("nothing is parked")
		}
		return
	}
	t.Table("SERVICE\tID\tTYPE\tBYTES\tATTEMPTS\tREASON", func(row func(...any)) {
		for _, p := range all.Parked {
			line, _, _ := strings.Cut(p.Reason, "\n")
			row(p.Service, p.ID, cmp.Or(p.Type, "-"), p.Size, p.Attempts, line)
		}
	})
}

func showParked(ctx context.Context, e *Env, id string) error {
	var missing []admin.Missing
	client := e.Client()
	for _, service := range client.Services {
		found, err := client.Service(service).ParkedEvent(ctx, id)
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			missing = append(missing, admin.NewMissing(service, err))
			continue
		}
		return e.Print(found, func(t *Text) {
			t.Printf("%s parked %s %s at %s after %d attempts\nthrough %s under %s\n", service,
				cmp.Or(found.Type, "something"), found.ID, found.UpdatedAt.Format(time.RFC3339),
				found.Attempts, found.Exchange, found.RoutingKey)
			t.Lines("  ", found.Reason)
			t.Printf("\n")
			t.attributes(found.Attributes)
			t.Printf("\n")
			t.Lines("  ", string(found.Body))
		})
	}
	return notParked(e, id, missing)
}

// attributes writes the attributes of an event, one on a line.
func (t *Text) attributes(values any) {
	list, _ := values.(map[string]any) // as JSON decodes an object
	for _, name := range slices.Sorted(maps.Keys(list)) {
		t.Printf("%s: %v\n", name, list[name])
	}
}

// tryParked requests a dry run from each service, until one has the event.
func tryParked(ctx context.Context, e *Env, id string) error {
	var missing []admin.Missing
	client := e.Client()
	for _, service := range client.Services {
		result, err := client.Service(service).DryRun(ctx, id)
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			missing = append(missing, admin.NewMissing(service, err))
			continue
		}
		err = e.Print(result, func(t *Text) {
			if result.Error == "" {
				t.Printf("%s would handle it, with %d effects\n", service, len(result.Publishes))
			}
			for _, e := range result.Publishes {
				kind := "publish"
				switch {
				case e.Call != nil:
					kind = "call"
				case e.Due != nil:
					kind = "schedule"
				}
				t.Printf("  %s %s %s\n", kind, e.Type, e.Data)
			}
		})
		if err == nil && result.Error != "" {
			err = Error{Code: ExitProblems, Err: fmt.Errorf("%s would fail: %s", service, result.Error)}
		}
		return err
	}
	return notParked(e, id, missing)
}

// notParked is the error when no service that answers has parked an event.
func notParked(e *Env, id string, missing []admin.Missing) error {
	if len(missing) > 0 {
		return e.partial(missing, nil)
	}
	return Error{Code: ExitNotFound, Err: fmt.Errorf("nothing is parked under %q", id), Next: "see: " +
		e.App.Name + " parked list"}
}
