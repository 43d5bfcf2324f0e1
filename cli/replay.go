package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
)

// replayTimeout bounds how long a replay is waited for.
const replayTimeout = time.Hour

func replayCommand(e *Env) *cobra.Command {
	var since, subject string
	first, _, _ := strings.Cut(e.App.exampleServices(), " ")
	c := &cobra.Command{
		Use:   "replay [SERVICE...] [ID...]",
		Short: "Publish again what services have published, with the same ids",
		Long: "Publish again what services have published, with the same ids: events of one service " +
			"by their ids, or\n" +
			"all events of one or more services since a time or about a subject. Services that have " +
			"handled them take them " +
			"for duplicates.\n" +
			"It is how a broker that lost its data is made whole. A service that does not answer delays " +
			"no other service;\n" +
			"the exit code is 7 then.",
		Example: "  " + e.App.Name + " replay " + e.App.exampleServices() + " --since 1h\n" +
			"  " + e.App.Name + " replay --subject 0190a0e0-0000-7000-8000-000000000001\n" +
			"  " + e.App.Name + " replay " + first + " 0190b1c2-7d3e-7f00-8000-000000000001",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			services, ids := args, []string(nil)
			if i := slices.IndexFunc(args, isID); i > 0 {
				services, ids = args[:i], args[i:]
			}
			if len(services) == 0 && subject != "" {
				services = e.App.services()
			}
			if len(services) == 0 {
				return usage(errors.New("name the services, or --subject for all of them"))
			}
			if err := e.App.known(services...); err != nil {
				return usage(err)
			}
			if subject != "" && len(ids) == 0 && since == "" {
				return replayAll(c.Context(), e, services, about(subject))
			}
			request, err := replayRequest(services, ids, since, subject)
			if err != nil {
				return usage(err)
			}
			return replayAll(c.Context(), e, services,
				func(context.Context, admin.Service) (admin.ReplayRequest, error) { return request, nil })
		},
	}
	c.Flags().StringVar(&subject, "subject", "", "all events about this subject, such as an order")
	c.Flags().StringVar(&since, "since", "", "all events since then: 90m ago, or a time such as "+
		"2026-01-02T15:04:05Z")
	return c
}

func isID(argument string) bool {
	_, err := events.ParseID(argument)
	return err == nil
}

// replayRequest reads the arguments of the command.
func replayRequest(services, ids []string, since, subject string) (r admin.ReplayRequest,
	err error) {
	if (len(ids) > 0) == (since != "") || subject != "" {
		return r, errors.New("give the ids of events, --since or --subject")
	}
	if len(ids) > 0 && len(services) > 1 {
		return r, errors.New("give the one service that has published the events with these ids")
	}
	if since == "" {
		return admin.ReplayRequest{IDs: ids}, nil
	}
	if ago, err := time.ParseDuration(since); err == nil {
		if ago <= 0 {
			return r, fmt.Errorf("--since %q: must be more than 0", since)
		}
		return admin.ReplayRequest{AgoSeconds: ago.Seconds()}, nil // the service's database has the clock
	}
	at, err := time.Parse(time.RFC3339, since)
	if err != nil {
		return r, fmt.Errorf("--since %q: want 90m, or a time such as 2026-01-02T15:04:05Z", since)
	}
	return admin.ReplayRequest{Since: &at}, nil
}

// about requests the events that a service has published about a subject.
func about(subject string) func(ctx context.Context, s admin.Service) (admin.ReplayRequest, error) {
	return func(ctx context.Context, s admin.Service) (r admin.ReplayRequest, err error) {
		history, err := s.History(ctx, subject)
		for _, e := range history {
			if e.Call == nil {
				r.IDs = append(r.IDs, e.ID)
			}
		}
		return r, err
	}
}

// replayAll requests the replays of several services at the same time, waits until each has ended,
// and prints what became of it.
func replayAll(ctx context.Context, e *Env, services []string,
	request func(ctx context.Context, s admin.Service) (admin.ReplayRequest, error)) error {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	client := e.Client()
	all, missing, failed := change(services, func(service string) (admin.Replay, error) {
		r, err := request(ctx, client.Service(service))
		if err != nil || len(r.IDs) == 0 && r.Since == nil && r.AgoSeconds == 0 {
			return admin.Replay{Service: service}, err // it has published nothing about the subject
		}
		return client.Replay(ctx, service, r)
	})
	for _, r := range all {
		failed = errors.Join(failed, notReplayed(r))
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

// notReplayed is the error of a replay that did not publish all events again.
func notReplayed(r admin.Replay) error {
	if r.Refused+r.Held == 0 {
		return nil
	}
	return Error{Code: ExitProblems, Err: fmt.Errorf("%d events of %s were refused and %d are held, "+
		"so they were not published again: %s",
		r.Refused, r.Service, r.Held, r.Reason)}
}
