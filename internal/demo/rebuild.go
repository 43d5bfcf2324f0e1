package demo

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
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
)

// The bounds of waiting for a projection.
const (
	rebuildPoll    = 100 * time.Millisecond
	rebuildTimeout = time.Hour
)

func rebuild(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "rebuild [PROJECTION...]", Short: "Fill new tables for reading from the events, " +
			"while the present ones are read",
		Example:   "  quadrille accounts rebuild\n  quadrille accounts rebuild account_statement",
		ValidArgs: projectionNames(), Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, names []string) error {
			for _, name := range names {
				if !slices.Contains(projectionNames(), name) {
					return cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("there is no projection %.64q", name),
						Next: "they are " + strings.Join(projectionNames(), " and ")}
				}
			}
			if len(names) == 0 {
				names = projectionNames()
			}
			ctx, cancel := context.WithTimeout(c.Context(), rebuildTimeout)
			defer cancel()
			done, err := rebuildEach(ctx, e, names)
			if len(done) == 0 && err != nil {
				return err
			}
			missing, failed := awayOrFailed(err)
			err = e.Print(map[string]any{"projections": done, "missing": missing}, func(t *cli.Text) {
				for _, p := range done {
					t.Printf("%s: rebuilt from %d events\n", p.Name, p.Done)
				}
			})
			return e.Partial(len(done), missing, cmp.Or(err, failed))
		},
	}
}

// rebuildEach rebuilds one projection after another. One that cannot be rebuilt stops no other; a
// service that cannot be reached ends it.
func rebuildEach(ctx context.Context, e *cli.Env, names []string) (done []admin.Projection,
	failed error) {
	done = []admin.Projection{}
	for _, name := range names {
		p, err := Rebuild(ctx, e, name, func(p admin.Projection) {
			e.Notef("%s: %d of about %d events", p.Name, p.Done, p.Of)
		})
		if admin.Unreachable(err) {
			return done, err
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		done = append(done, p)
	}
	return done, failed
}

func projectionNames() (names []string) {
	for _, p := range payments.Projections() {
		names = append(names, p.Name)
	}
	return names
}

// Rebuild begins the rebuild of a projection and waits until readers see it. It calls progress with
// how far the rebuild is.
func Rebuild(ctx context.Context, e *cli.Env, name string,
	progress func(admin.Projection)) (p admin.Projection, err error) {
	service := e.Client().Service("payments")
	list, err := service.Rebuild(ctx, name)
	if err != nil {
		return p, err
	}
	wanted, _ := newest(list, name)
	tick := time.NewTicker(rebuildPoll)
	defer tick.Stop()
	for reported := int64(-1); ; {
		p, ok := newest(list, name)
		switch {
		case !ok || p.Generation > wanted.Generation:
			return p, fmt.Errorf("%s is being rebuilt by somebody else", name)
		case p.Live:
			return p, nil
		case p.Done != reported:
			progress(p)
			reported = p.Done
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return p, fmt.Errorf("the service goes on to rebuild %s without us: %w", name, ctx.Err())
		}
		if list, err = service.Projections(ctx); err != nil {
			return p, err
		}
	}
}

// newest is the latest generation of a projection.
func newest(list []admin.Projection, name string) (found admin.Projection, ok bool) {
	for _, p := range list {
		if p.Name == name && p.Generation > found.Generation {
			found, ok = p, true
		}
	}
	return found, ok
}
