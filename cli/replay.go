package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// The bounds of waiting for a replay.
const (
	replayPoll    = 200 * time.Millisecond
	replayTimeout = time.Hour
)

// Replay is a request to publish again, as the service tells of it.
type Replay struct {
	ID        int64      `json:"id"`
	Published int64      `json:"published"`
	Refused   int64      `json:"refused"`
	Held      int64      `json:"held"`
	Reason    string     `json:"reason,omitempty"`
	DoneAt    *time.Time `json:"done_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
}

func (e *Env) replay() *cobra.Command {
	var since string
	c := &cobra.Command{
		Use: "replay SERVICE [ID...]", Short: "Publish again what a service has said, with the same ids",
		Long: "Publish again what a service has said, with the same ids: events by their ids, or all " +
			"since a time.\n" +
			"Services that have handled them take them for duplicates. It is how a broker that lost " +
			"its data is made whole.",
		Example: "  " + e.App.Name + " replay orders --since 1h\n  " + e.App.Name +
			" replay payments 0190b1c2-7d3e-7f00-8000-000000000001",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			body, err := e.replayStatus(args[0], args[1:], since)
			if err != nil {
				return usage(err)
			}
			return e.replayLoop(c.Context(), args[0], body)
		},
	}
	c.Flags().StringVar(&since, "since", "", "all events since then: 90m ago, or a time such as "+
		"2026-01-02T15:04:05Z")
	return c
}

// replayStatus is the body of the request.
func (e *Env) replayStatus(service string, ids []string, since string) (map[string]any, error) {
	if _, ok := e.App.Topology.Service(service); !ok {
		return nil, fmt.Errorf("there is no service %q", service)
	}
	if (len(ids) > 0) == (since != "") {
		return nil, errors.New("give the ids of events, or --since")
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

// replayLoop asks for it and waits until it has ended.
func (e *Env) replayLoop(ctx context.Context, service string, body map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	var request struct{ ID int64 }
	if err := e.Call(ctx, service, "POST", "/admin/replay", nil, body, &request); err != nil {
		return err
	}
	tick := time.NewTicker(replayPoll)
	defer tick.Stop()
	for {
		var list []Replay
		if err := e.Call(ctx, service, "GET", "/admin/replay", nil, nil, &list); err != nil {
			return err
		}
		at := slices.IndexFunc(list, func(r Replay) bool { return r.ID == request.ID })
		if at >= 0 && (list[at].EndedAt != nil || list[at].DoneAt != nil) {
			return e.printReplay(service, list[at])
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("request %d goes on in %s without us: %w", request.ID, service, ctx.Err())
		}
	}
}

func (e *Env) printReplay(service string, r Replay) error {
	err := e.Print(r, func(t *Text) {
		t.Printf("%s: %d events published again, %d refused, %d held\n", service, r.Published, r.Refused,
			r.Held)
	})
	if err == nil && r.Refused+r.Held > 0 {
		err = Error{Code: ExitProblems, Err: fmt.Errorf("%d events were refused and %d are held, so "+
			"they were not published again: %s",
			r.Refused, r.Held, r.Reason)}
	}
	return err
}
