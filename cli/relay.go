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

// relayTimeout bounds how long a relay is waited for to change its source.
const relayTimeout = time.Minute

func relayCommand(e *Env) *cobra.Command {
	group := &cobra.Command{Use: "relay", Short: "How services get their events out of their outboxes"}
	show := &cobra.Command{
		Use: "show", Example: "  " + e.App.Name + " relay show",
		Short: "Show which replica publishes the events of a service, and how it finds them",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client := e.Client()
			all, missing := admin.Collect(client.Services, func(service string) ([]admin.Relay, error) {
				r, err := client.Service(service).Relay(c.Context())
				return []admin.Relay{r}, err
			})
			document := map[string]any{"relays": all, "missing": missing}
			return e.partial(missing, e.Print(document, func(t *Text) { printRelays(t, all) }))
		},
	}
	use := &cobra.Command{
		Use: "use window|stream SERVICE...", Short: "Let the relays of services use the window or the " +
			"stream, and wait until they do",
		Long: "A relay publishes the events that a service has committed. It finds them through the " +
			"window, which is a query of\nthe outbox table and needs nothing, or through the stream, " +
			"which is the logical replication of PostgreSQL.\n" +
			"The change loses nothing, and an event that is published twice is handled once.\n" +
			"A service that does not answer delays no other service; the exit code is 7 then.",
		Example: "  " + e.App.Name + " relay use stream " + e.App.exampleServices() +
			"\n  " + e.App.Name + " relay use window " + e.App.exampleServices(),
		Args: cobra.MinimumNArgs(2), ValidArgs: []string{"window", "stream"},
		RunE: func(c *cobra.Command, args []string) error {
			if err := e.App.known(args[1:]...); err != nil {
				return usage(err)
			}
			if !slices.Contains(c.ValidArgs, args[0]) {
				return usage(fmt.Errorf("%q is no source: want %s", args[0],
					strings.Join(c.ValidArgs, " or ")))
			}
			return useRelays(c.Context(), e, args[1:], args[0])
		},
	}
	group.AddCommand(show, use, heldCommand(e), releaseCommand(e))
	return group
}

// useRelays changes the relays of services at the same time, and prints those that have changed.
func useRelays(ctx context.Context, e *Env, services []string, source string) error {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	client := e.Client()
	all, missing, failed := change(services, func(service string) (admin.Relay, error) {
		return client.UseRelay(ctx, service, source)
	})
	if len(all) == 0 && len(missing) == 0 {
		return failed
	}
	err := e.Print(map[string]any{"relays": all, "missing": missing},
		func(t *Text) { printRelays(t, all) })
	return e.Partial(len(all), missing, cmp.Or(err, failed))
}

func printRelays(t *Text, all []admin.Relay) {
	t.Table("SERVICE\tSOURCE\tREADS COMMITTED EVENTS FROM\tSINCE\tBY\tSLOT\tNOT READ YET",
		func(row func(...any)) {
			for _, r := range all {
				slot, lag := "-", "-"
				if r.Slot != nil && r.Slot.State != "" {
					slot, lag = r.Slot.State, fmt.Sprint(r.Slot.LagBytes, " bytes")
				}
				row(r.Service, r.Source, readsFrom(r), r.Since, cmp.Or(r.Leader, "-"), slot, lag)
			}
		})
	for _, r := range all {
		for _, warning := range r.Warnings {
			t.Printf("%s: %s\n", r.Service, warning)
		}
	}
}

// readsFrom says in plain words what the source of a relay is, and which one it will be.
func readsFrom(r admin.Relay) string {
	words := map[string]string{"window": "its outbox table", "stream": "the log of PostgreSQL"}
	now := cmp.Or(words[r.Source], "nothing yet")
	if r.Wanted != r.Source && words[r.Wanted] != "" {
		return now + ", soon from " + words[r.Wanted]
	}
	return now
}
