package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

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
	var only string
	show := &cobra.Command{
		Use: "show ID", Short: "Show one with its envelope and its bytes", Args: cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked show sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f0",
		RunE: func(c *cobra.Command, args []string) error {
			return showParked(c.Context(), e, args[0], only)
		},
	}
	try := &cobra.Command{
		Use: "dry-run ID", Short: "Handle one, show what would happen, and roll it back",
		Args:    cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked dry-run 0190b1c2-7d3e-7f00-8000-000000000001",
		RunE: func(c *cobra.Command, args []string) error {
			return tryParked(c.Context(), e, args[0], only)
		},
	}
	for _, c := range []*cobra.Command{show, try} {
		c.Flags().StringVar(&only, "service", "", "the copy that this service has parked")
	}
	group.AddCommand(list, groupsCommand(e), show, try, redriveCommand(e), editCommand(e),
		discardCommand(e),
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

// askParked asks the services about a parked event with this id, until one has it: all of them, or
// the one that is named. It returns the answer and that service. Of an id that several services
// have parked, each has a copy.
func askParked[T any](e *Env, id, only string,
	ask func(s admin.Service) (T, error)) (answer T, service string, err error) {
	if only != "" && e.App.known(only) != nil {
		return answer, "", usage(e.App.known(only))
	}
	var missing []admin.Missing
	client := e.Client()
	for _, service := range client.Services {
		if only != "" && service != only {
			continue
		}
		answer, err := ask(client.Service(service))
		switch {
		case err == nil:
			return answer, service, nil
		case !IsNotFound(err):
			missing = append(missing, admin.NewMissing(service, err))
		}
	}
	return answer, "", notParked(e, id, missing)
}

func showParked(ctx context.Context, e *Env, id, only string) error {
	found, service, err := askParked(e, id, only, func(s admin.Service) (admin.ParkedEvent, error) {
		return s.ParkedEvent(ctx, id)
	})
	if err != nil {
		return err
	}
	return e.Print(found, func(t *Text) {
		t.Printf("%s parked %s %s at %s after %d attempts\nthrough %s under %s\n", service,
			cmp.Or(found.Type, "something"), found.ID, found.UpdatedAt,
			found.Attempts, found.Exchange, found.RoutingKey)
		t.Lines("  ", found.Reason)
		t.Printf("\n")
		t.attributes(found.Attributes)
		t.Printf("\n")
		t.Lines("  ", string(found.Body))
		if found.Original != nil {
			t.Printf("\nan operator has changed the body; it was parked with:\n")
			t.Lines("  ", string(found.Original))
		}
		if only == "" {
			e.Notef("another service may have parked it, too: see --service, and %s",
				e.App.Command("parked list"))
		}
	})
}

// attributes writes the attributes of an event, one on a line.
func (t *Text) attributes(values any) {
	list, _ := values.(map[string]any) // as JSON decodes an object
	for _, name := range slices.Sorted(maps.Keys(list)) {
		t.Printf("%s: %v\n", name, list[name])
	}
}

func tryParked(ctx context.Context, e *Env, id, only string) error {
	result, service, err := askParked(e, id, only, func(s admin.Service) (admin.DryRun, error) {
		return s.DryRun(ctx, id)
	})
	if err != nil {
		return err
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

// notParked is the error when no service that answers has parked an event.
func notParked(e *Env, id string, missing []admin.Missing) error {
	if len(missing) > 0 {
		return e.partial(missing, nil)
	}
	return Error{Code: ExitNotFound, Err: fmt.Errorf("nothing is parked under %q", id), Next: "see: " +
		e.App.Command("parked list")}
}
