package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
)

// The bounds of waiting for a replay.
const (
	replayPoll    = 200 * time.Millisecond
	replayTimeout = time.Hour
)

// Replay is a replay request at one service.
type Replay struct {
	Service string `json:"service"`
	admin.Replay
}

func (e *Env) replay() *cobra.Command {
	var since string
	first, _, _ := strings.Cut(e.App.exampleServices(), " ")
	c := &cobra.Command{
		Use:   "replay SERVICE... [ID...]",
		Short: "Publish again what services have published, with the same ids",
		Long: "Publish again what services have published, with the same ids: events of one service " +
			"by their ids, or\n" +
			"all events of one or more services since a time. Services that have handled them take them " +
			"for duplicates.\n" +
			"It is how a broker that lost its data is made whole. A service that does not answer delays " +
			"no other service;\n" +
			"the exit code is 7 then.",
		Example: "  " + e.App.Name + " replay " + e.App.exampleServices() + " --since 1h\n" +
			"  " + e.App.Name + " replay " + first + " 0190b1c2-7d3e-7f00-8000-000000000001",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			services, ids := args, []string(nil)
			if i := slices.IndexFunc(args, isID); i > 0 {
				services, ids = args[:i], args[i:]
			}
			body, err := e.replayStatus(services, ids, since)
			if err != nil {
				return usage(err)
			}
			return e.replayAll(c.Context(), services, body)
		},
	}
	c.Flags().StringVar(&since, "since", "", "all events since then: 90m ago, or a time such as "+
		"2026-01-02T15:04:05Z")
	return c
}

func isID(argument string) bool {
	_, err := events.ParseID(argument)
	return err == nil
}

// known is an error that names the first of some services that the topology does not have.
func (e *Env) known(services ...string) error {
	for _, service := range services {
		if _, ok := e.App.Topology.Service(service); !ok {
			return fmt.Errorf("there is no service %q", service)
		}
	}
	return nil
}

// replayStatus is the body of the request.
func (e *Env) replayStatus(services, ids []string, since string) (map[string]any, error) {
	if err := e.known(services...); err != nil {
		return nil, err
	}
	if (len(ids) > 0) == (since != "") {
		return nil, errors.New("give the ids of events, or --since")
	}
	if len(ids) > 0 && len(services) > 1 {
		return nil, errors.New("give the one service that has published the events with these ids")
	}
	if since == "" {
		return map[string]any{"ids": ids}, nil
	}
	if ago, err := time.ParseDuration(since); err == nil {
		if ago <= 0 {
			return nil, fmt.Errorf("--since %q: must be more than 0", since)
		}
		return map[string]any{"ago_seconds": ago.Seconds()}, nil // the service's database has the clock
	}
	at, err := time.Parse(time.RFC3339, since)
	if err != nil {
		return nil, fmt.Errorf("--since %q: want 90m, or a time such as 2026-01-02T15:04:05Z", since)
	}
	return map[string]any{"since": at}, nil
}

// replayAll requests the replays of several services at the same time, waits until each has ended,
// and prints what became of it.
func (e *Env) replayAll(ctx context.Context, services []string, body map[string]any) error {
	var mu sync.Mutex
	found := map[string]Replay{}
	missing, failed := change(services, func(service string) error {
		r, err := e.replayLoop(ctx, service, body)
		if err == nil {
			mu.Lock()
			found[service] = r
			mu.Unlock()
		}
		return err
	})
	all := []Replay{}
	for _, service := range services {
		if r, ok := found[service]; ok {
			all = append(all, r)
			failed = errors.Join(failed, r.problem())
		}
	}
	if len(all) == 0 && len(missing) == 0 {
		return failed
	}
	document := map[string]any{"replays": all, "missing": missing}
	err := e.Print(document, func(t *Text) {
		for _, r := range all {
			t.Printf("%s: %d events published again, %d refused, %d held\n", r.Service, r.Published,
				r.Refused, r.Held)
		}
	})
	return e.Partial(len(all), missing, cmp.Or(err, failed))
}

// replayLoop requests a replay and waits until it has ended.
func (e *Env) replayLoop(ctx context.Context, service string, body map[string]any) (Replay, error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	var request struct{ ID int64 }
	if err := e.Call(ctx, service, "POST", "/admin/replay", nil, body, &request); err != nil {
		return Replay{}, err
	}
	tick := time.NewTicker(replayPoll)
	defer tick.Stop()
	for {
		var page struct{ Replays []Replay }
		// The list is newest first, so a page after the next id begins with this request.
		path := fmt.Sprintf("/admin/replay?limit=1&after=%d", request.ID+1)
		if err := e.Call(ctx, service, "GET", path, nil, nil, &page); err != nil {
			return Replay{}, fmt.Errorf("request %d goes on in %s without us: %w", request.ID, service, err)
		}
		for _, r := range page.Replays {
			if r.ID == request.ID && (r.EndedAt != nil || r.DoneAt != nil) {
				r.Service = service
				return r, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Replay{}, fmt.Errorf("request %d goes on in %s without us: %w", request.ID, service,
				ctx.Err())
		}
	}
}

// problem is the error of a replay that did not publish all events again.
func (r Replay) problem() error {
	if r.Refused+r.Held == 0 {
		return nil
	}
	return Error{Code: ExitProblems, Err: fmt.Errorf("%d events of %s were refused and %d are held, "+
		"so they were not published again: %s",
		r.Refused, r.Service, r.Held, r.Reason)}
}
