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
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// The bounds of a migration.
const (
	migrateTimeout = time.Minute
	// migrateMargin is how much more is replayed, because clocks differ and transactions last.
	migrateMargin = time.Minute
)

// migration is what topology migrate prints.
type migration struct {
	rabbit.Migrated
	Replays []admin.Replay `json:"replays"`
}

func migrateCommand(e *Env) *cobra.Command {
	timeout := migrateTimeout
	c := &cobra.Command{
		Use: "migrate", Short: "Apply it, and recreate queues whose arguments the broker cannot change",
		Long: "Apply the topology. A queue that exists with other arguments is unbound, emptied by its " +
			"service, deleted, and declared\nand bound again. Then the services publish again what it " +
			"missed meanwhile, which the others take for duplicates.\nServices go on publishing; the " +
			"service of the queue waits for some seconds. A queue that is not emptied in time\nis bound " +
			"again as it was. If the command is killed, `audit` names what is missing, with the replay.",
		Example: "  " + e.App.Name + " topology plan\n  " + e.App.Name + " topology migrate",
		RunE: func(c *cobra.Command, _ []string) error {
			manage, broker, err := e.brokerSettings()
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return usage(fmt.Errorf("--timeout %s: must be more than 0", timeout))
			}
			return e.migrate(c.Context(), manage, broker, timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", migrateTimeout,
		"how long the queues may take to be emptied")
	return c
}

func (e *Env) migrate(ctx context.Context, manage, broker string, timeout time.Duration) error {
	for _, a := range admin.All(e.publishersOf(e.App.Topology.Types()),
		func(service string) (admin.Relay, error) { return e.Client().Service(service).Relay(ctx) }) {
		if a.Err != nil {
			return Error{Code: codeOf(a.Err), Err: fmt.Errorf("%s could not publish again what a queue "+
				"misses meanwhile: %w", a.Service, a.Err), Next: e.App.howToStart()}
		}
	}
	began := time.Now()
	e.warnf("if this is interrupted, run: %s", e.App.Command("replay "+
		strings.Join(e.App.services(), " ")+" --since "+instant(began.Add(-migrateMargin))))
	done, err := rabbit.Migrate(ctx, manage, broker, e.App.Topology, timeout)
	if errors.Is(err, rabbit.ErrNotDrained) {
		err = Error{Code: ExitProblems, Err: err, Next: "the queue is as it was; see whether its " +
			"service runs and handles events, then repeat this, with a longer --timeout if it needs one"}
	}
	result := migration{done, []admin.Replay{}}
	var missing []admin.Missing
	if publishers := e.publishersOf(done.Missed); len(publishers) > 0 {
		// What the queues have missed must come again, whatever became of the migration.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayTimeout)
		defer cancel()
		var failed error
		result.Replays, missing, failed = change(publishers,
			func(service string) (admin.Replay, error) {
				return e.Client().Replay(ctx, service,
					admin.ReplayRequest{AgoSeconds: (time.Since(began) + migrateMargin).Seconds()})
			})
		for _, r := range result.Replays {
			failed = errors.Join(failed, notReplayed(r))
		}
		err = errors.Join(err, failed)
	}
	if err == nil || len(done.Missed) > 0 {
		err = errors.Join(err, e.Print(result, func(t *Text) { result.text(t, e.App) }))
	}
	return e.Partial(len(e.App.services())-len(missing), missing, err)
}

// publishersOf returns the services that publish one of these types, in the order of the topology.
func (e *Env) publishersOf(types []string) (services []string) {
	for _, s := range e.App.Topology.Services {
		if slices.ContainsFunc(s.Publishes(), func(t string) bool { return slices.Contains(types, t) }) {
			services = append(services, s.Name)
		}
	}
	return services
}

func (m migration) text(t *Text, a App) {
	for _, q := range m.Queues {
		t.Printf("recreated %s\n", q)
	}
	for _, r := range m.Replays {
		t.Printf("%s: %d events published again\n", r.Service, r.Published)
	}
	t.Printf("%d queues recreated, topology %s\n", len(m.Queues), a.Topology.Marker())
}
