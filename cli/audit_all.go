package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

const (
	defaultGrace = 10 * time.Second
	// shownFindings is how many findings are written for a person; JSON has all.
	shownFindings = 50
)

func auditAllCommand(e *Env) *cobra.Command {
	grace := defaultGrace
	c := &cobra.Command{
		Use: "audit", Short: "Check that nothing is lost or doubled, and that the services agree",
		Long: "Compare all services, without changing anything and while traffic goes on: each event\n" +
			"in the history of a service is in the inbox of each subscriber, with the same data, or\n" +
			"waits in a known place; each service keeps its own invariants; and the services agree\n" +
			"about what is at rest. The exit code is 5 when something contradicts.",
		Example: "  " + e.App.Name + " audit\n  " + e.App.Name + " audit --grace 1m -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if grace < 0 {
				return usage(fmt.Errorf("--grace %s: must not be negative", grace))
			}
			found, err := e.Audit(c.Context(), grace)
			if err != nil {
				return err
			}
			err = e.partial(found.Missing, e.Print(found, func(t *Text) { e.printAudit(t, found) }))
			if n := len(found.Findings); n > 0 {
				err = errors.Join(Error{Code: ExitProblems, Err: fmt.Errorf("%d contradictions", n)}, err)
			}
			return err
		},
	}
	c.Flags().DurationVar(&grace, "grace", grace, "how long an event may be under way")
	return c
}

// Audit runs the audit of the kit, and that of the choreography. What may be under way is looked up
// again after grace.
func (e *Env) Audit(ctx context.Context, grace time.Duration) (admin.Audit, error) {
	told := time.Now()
	found, err := admin.Auditor{Client: e.Client(), Subscribers: e.App.Topology.Subscribers,
		Grace: grace, Progress: func(events int) {
			if time.Since(told) > time.Second {
				told = time.Now()
				e.Notef("compared %d events", events)
			}
		}}.Run(ctx)
	if err == nil && e.App.Audit != nil && len(found.Missing) == 0 {
		err = e.App.Audit(ctx, e, &found, grace)
	}
	return found, err
}

func (e *Env) printAudit(t *Text, found admin.Audit) {
	t.Printf("compared %d events", found.Events)
	if found.UnderWay > 0 {
		t.Printf(", %d are under way or parked", found.UnderWay)
	}
	for _, count := range found.Checked {
		t.Printf(", %s", count)
	}
	t.Printf("; %d contradictions\n", len(found.Findings))
	for i, f := range found.Findings {
		if i == shownFindings {
			t.Printf("… and %d more: -o json has all\n", len(found.Findings)-i)
			break
		}
		t.Printf("%s: %s: %s\n", strings.TrimSpace(f.Service+" "+f.Subject), f.Rule, f.Detail)
		if f.Next != "" {
			t.Printf("  next: %s\n", e.App.Command(f.Next))
		}
	}
}
