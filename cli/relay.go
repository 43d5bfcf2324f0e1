package cli

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// The bounds of waiting for a relay to change its source.
const (
	relayPoll    = 200 * time.Millisecond
	relayTimeout = time.Minute
)

// Relay is the state of the relay of one service.
type Relay struct {
	Service string `json:"service"`
	admin.Relay
}

func (e *Env) relay() *cobra.Command {
	group := &cobra.Command{Use: "relay", Short: "How services get their events out of their outboxes"}
	show := &cobra.Command{
		Use: "show", Short: "Show which replica relays, and its source", Example: "  " + e.App.Name +
			" relay show",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, missing := collect(e, func(service string) ([]Relay, error) {
				r := Relay{Service: service}
				err := e.Call(c.Context(), service, "GET", "/admin/relay", nil, nil, &r)
				return []Relay{r}, err
			})
			document := map[string]any{"relays": all, "missing": missing}
			return e.partial(missing, e.Print(document, func(t *Text) { printRelays(t, all) }))
		},
	}
	use := &cobra.Command{
		Use: "use window|stream SERVICE...", Short: "Let the relays of services use the window or the " +
			"stream, and wait until they do",
		Long: "Let the relays of services find what was committed through the window, which needs " +
			"nothing, or through the stream,\n" +
			"which is PostgreSQL's logical replication. The change loses nothing; what may come " +
			"twice is handled once.\n" +
			"A service that does not answer delays no other service; the exit code is 7 then.",
		Example: "  " + e.App.Name + " relay use stream " + e.App.exampleServices() +
			"\n  " + e.App.Name + " relay use window " + e.App.exampleServices(),
		Args: cobra.MinimumNArgs(2), ValidArgs: []string{"window", "stream"},
		RunE: func(c *cobra.Command, args []string) error {
			if err := e.known(args[1:]...); err != nil {
				return usage(err)
			}
			return e.useRelays(c.Context(), args[1:], args[0])
		},
	}
	group.AddCommand(show, use)
	return group
}

// useRelays changes the relays of services at the same time, and prints those that have changed.
func (e *Env) useRelays(ctx context.Context, services []string, source string) error {
	var mu sync.Mutex
	found := map[string]Relay{}
	missing, failed := change(services, func(service string) error {
		r, err := e.UseRelay(ctx, service, source)
		if err == nil {
			mu.Lock()
			found[service] = r
			mu.Unlock()
		}
		return err
	})
	all := []Relay{}
	for _, service := range services {
		if r, ok := found[service]; ok {
			all = append(all, r)
		}
	}
	if len(all) == 0 && len(missing) == 0 {
		return failed
	}
	err := e.Print(map[string]any{"relays": all, "missing": missing},
		func(t *Text) { printRelays(t, all) })
	return e.Partial(len(all), missing, cmp.Or(err, failed))
}

func printRelays(t *Text, all []Relay) {
	t.Table("SERVICE\tSOURCE\tWANTED\tTOKEN\tLEADS SINCE\tSLOT\tLAG\tLEADER", func(row func(...any)) {
		for _, r := range all {
			slot, lag := "-", "-"
			if r.Slot != nil && r.Slot.State != "" {
				slot, lag = r.Slot.State, fmt.Sprint(r.Slot.LagBytes, " bytes")
			}
			since := r.Since.Local().Format(time.DateTime)
			row(r.Service, r.Source, r.Wanted, r.Token, since, slot, lag, cmp.Or(r.Leader, "-"))
		}
	})
	for _, r := range all {
		for _, warning := range r.Warnings {
			t.Printf("%s: %s\n", r.Service, warning)
		}
	}
}

// UseRelay sets which source a service's relay uses, and waits until it does.
func (e *Env) UseRelay(ctx context.Context, service, source string) (r Relay, err error) {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	r.Service = service
	if err := e.Call(ctx, service, "POST", "/admin/relay", nil, map[string]any{"source": source},
		&r); err != nil {
		return r, err
	}
	tick := time.NewTicker(relayPoll)
	defer tick.Stop()
	for r.Source != source {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r, Error{Code: ExitFailure, Err: fmt.Errorf("the relay of %s still uses the %s after %s",
				service, r.Source, relayTimeout),
				Next: "its log says why; for the stream, wal_level must be logical and its role " +
					"must have REPLICATION"}
		}
		r = Relay{Service: service}
		if err := e.Call(ctx, service, "GET", "/admin/relay", nil, nil, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}
