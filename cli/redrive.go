package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

func redriveCommand(e *Env) *cobra.Command {
	s := &selection{}
	var reason string
	var rate int
	var dry bool
	c := &cobra.Command{
		Use: "redrive [ID...]", Short: "Let parked events be handled again, after the cause is repaired",
		Args: cobra.ArbitraryArgs,
		Long: "Let parked events be handled again, with all their attempts: those with the ids, or " +
			"those that all filters select.\n" +
			"What fails again is parked again. The service keeps on record who did it and why. The " +
			"command may be repeated,\n" +
			"also by another operator at the same time: each event is redriven once.\n" +
			"--dry-run handles each of them, rolls everything back and says how many would succeed.",
		Example: "  " + e.App.Name + " parked redrive --parked-for \"no such column\" --dry-run\n" +
			"  " + e.App.Name + " parked redrive --parked-for \"no such column\" --reason " +
			"\"release 1.4.1\"",
		RunE: func(c *cobra.Command, ids []string) error {
			if rate < 1 {
				return usage(fmt.Errorf("--rate %d: must be 1 or more", rate))
			}
			s.ids = ids
			found, missing, err := s.find(c.Context(), e)
			switch {
			case err != nil:
				return err
			case dry:
				return dryRunAll(c.Context(), e, found, missing)
			}
			return repairAll(c.Context(), e, found, missing, rate, reason, "redriven",
				admin.Service.Redrive)
		},
	}
	s.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	c.Flags().IntVar(&rate, "rate", redriveRate, "at most so many events a second")
	c.Flags().BoolVar(&dry, "dry-run", false, "handle them, roll back, and count what would succeed")
	return c
}

func discardCommand(e *Env) *cobra.Command {
	s := &selection{}
	var reason string
	c := &cobra.Command{
		Use: "discard [ID...]", Short: "Remove parked events for good, with a reason",
		Args: cobra.ArbitraryArgs,
		Long: "Remove parked events for good: those with the ids, or those that all filters select. " +
			"They are never handled, also\n" +
			"when they are delivered again. The service keeps them on record as a whole, with who did it " +
			"and why.",
		Example: "  " + e.App.Name + " parked discard sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f0 --reason " +
			"\"a test of the partner\"",
		RunE: func(c *cobra.Command, ids []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage(errors.New("--reason: must say why, since what is discarded is never handled"))
			}
			s.ids = ids
			found, missing, err := s.find(c.Context(), e)
			if err != nil {
				return err
			}
			return repairAll(c.Context(), e, found, missing, redriveRate, reason, "discarded",
				admin.Service.Discard)
		},
	}
	s.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}

// repairAll redrives or discards events, and prints what was done, also before an error, and the
// next command. Its exit code is ExitProblems if some of them can only be discarded.
func repairAll(ctx context.Context, e *Env, found []admin.Parked, missing []admin.Missing, rate int,
	reason, verb string, do func(s admin.Service, ctx context.Context, r admin.RepairRequest) (
		admin.Repaired, error)) error {
	client, operator := e.Client(), operatorName()
	send := func(service string, ids []string) (admin.Repaired, error) {
		return do(client.Service(service), ctx,
			admin.RepairRequest{IDs: ids, Operator: operator, Reason: reason})
	}
	done, err := repair(ctx, e, found, rate, send)
	done.Missing = append(done.Missing, missing...)
	if err == nil || len(done.Repaired) > 0 {
		err = errors.Join(err, e.Print(done, func(t *Text) { done.print(e, t, verb) }))
	}
	for _, r := range done.Repaired {
		if err == nil && len(r.Evidence) > 0 {
			err = Error{Code: ExitProblems,
				Err:  errors.New("not everything that is selected can be redriven"),
				Next: e.App.Command("parked discard " + r.Evidence[0] + " --reason TEXT")}
		}
	}
	if err == nil && len(done.Repaired) > 0 {
		e.Notef("see what is still parked: %s", e.App.Command("parked groups"))
	}
	return e.partial(missing, err)
}

// trial is the result of a dry run of several parked events.
type trial struct {
	Succeed int             `json:"succeed"`
	Fail    []failure       `json:"fail"` // by error, the most frequent first
	Missing []admin.Missing `json:"missing"`
}

// failure is an error with which several events would fail.
type failure struct {
	Error  string   `json:"error"`
	Events []string `json:"events"`
}

// dryRunAll handles events one by one and rolls each back. Its exit code is ExitProblems if one of
// them would fail.
func dryRunAll(ctx context.Context, e *Env, found []admin.Parked,
	missing []admin.Missing) error {
	result := trial{Fail: []failure{}, Missing: append([]admin.Missing{}, missing...)}
	failed := 0
	for n, p := range found {
		run, err := e.Client().Service(p.Service).DryRun(ctx, p.ID)
		var refused admin.Problem
		switch {
		case IsNotFound(err):
			continue // somebody has repaired it meanwhile
		case errors.As(err, &refused) && refused.Status < 500:
			run.Error = refused.Detail
		case err != nil:
			return fmt.Errorf("after %d of %d events: %w", n, len(found), err)
		}
		if n++; len(found) >= progressFrom && n%progressFrom == 0 {
			e.Notef("%d of %d", n, len(found))
		}
		if run.Error == "" {
			result.Succeed++
			continue
		}
		failed++
		result.add(withoutIDs(run.Error), p.ID)
	}
	slices.SortStableFunc(result.Fail, func(a, b failure) int {
		return cmp.Compare(len(b.Events), len(a.Events))
	})
	err := e.Print(result, func(t *Text) {
		t.Printf("%d would succeed, %d would fail\n", result.Succeed, failed)
		for _, f := range result.Fail {
			t.Printf("  %d would fail, such as %s: %s\n", len(f.Events), f.Events[0], f.Error)
		}
	})
	if err == nil && failed > 0 {
		err = Error{Code: ExitProblems, Err: fmt.Errorf("%d of %d events would fail", failed, len(found)),
			Next: "see one of them: " + e.App.Command("parked show "+result.Fail[0].Events[0])}
	}
	return e.partial(missing, err)
}

func (t *trial) add(reason, id string) {
	i := slices.IndexFunc(t.Fail, func(f failure) bool { return f.Error == reason })
	if i < 0 {
		i, t.Fail = len(t.Fail), append(t.Fail, failure{Error: reason})
	}
	t.Fail[i].Events = append(t.Fail[i].Events, id)
}
