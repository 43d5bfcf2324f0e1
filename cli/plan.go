package cli

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// brokerSettings returns the addresses of the management API and of the broker.
func (e *Env) brokerSettings() (manage, broker string, err error) {
	if manage, err = e.Setting("QUADRILLE_MANAGEMENT_URL"); err != nil {
		return "", "", err
	}
	broker, err = e.Setting("QUADRILLE_AMQP_URL")
	return manage, broker, err
}

func planCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "plan", Short: "Show what apply would do to the broker; it changes nothing",
		Long: "Compare the broker with the topology through the management API, policies included. A " +
			"line with + is declared by\n" +
			"apply, one with ~ needs the command at its end, and one with - is removed by apply --prune. " +
			"Only what an earlier\n" +
			"version of this topology declared is removed. The exit code is 5 if there is a difference.",
		Example: "  " + e.App.Name + " topology plan\n  " + e.App.Name + " topology plan -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			manage, broker, err := e.brokerSettings()
			if err != nil {
				return err
			}
			steps, err := rabbit.Plan(c.Context(), manage, broker, e.App.Topology)
			if err != nil {
				return e.App.away("QUADRILLE_MANAGEMENT_URL", err)
			}
			count := map[string]int{}
			for _, s := range steps {
				count[s.Action]++
			}
			summary := fmt.Sprintf("%d to add, %d to change, %d to remove", count[rabbit.Add],
				count[rabbit.Change], count[rabbit.Remove])
			plan := map[string]any{"topology": e.App.Topology.Name, "marker": e.App.Topology.Marker(),
				"steps": append([]rabbit.Step{}, steps...)}
			if err := e.Print(plan, func(t *Text) {
				stepLines(t, steps)
				t.Printf("%s: %s\n", e.App.Topology.Name, summary)
			}); err != nil {
				return err
			}
			if len(steps) > 0 {
				return Error{Code: ExitProblems, Err: fmt.Errorf("the broker differs from %s",
					e.App.Topology.Name), Next: e.App.Command("topology apply" + pruneFlag(count))}
			}
			return nil
		},
	}
}

// pruneFlag is the flag of apply without which some steps of a plan are not done.
func pruneFlag(count map[string]int) string {
	if count[rabbit.Remove] > 0 {
		return " --prune"
	}
	return ""
}

func stepLines(t *Text, steps []rabbit.Step) {
	signs := map[string]string{rabbit.Add: "+", rabbit.Change: "~", rabbit.Remove: "-"}
	for _, s := range steps {
		t.Printf("%s %s: %s\n", signs[s.Action], s.Object, s.Reason)
		if s.Next != "" {
			t.Printf("    %s\n", s.Next)
		}
	}
}

func applyCommand(e *Env) *cobra.Command {
	var prune bool
	c := &cobra.Command{
		Use: "apply", Short: "Declare it on the broker; repeat it as often as you like",
		Long: "Declare exchanges, queues and bindings, and last the marker that services wait for. " +
			"With --prune, remove what only\n" +
			"earlier versions of this topology declared; a queue with messages or consumers stays, and " +
			"the exit code is then 5.",
		Example: "  QUADRILLE_AMQP_URL=amqp://operator:secret@broker/ " + e.App.Name +
			" topology apply\n  " + e.App.Name + " topology apply --prune   # no replica of an earlier " +
			"release runs any more",
		RunE: func(c *cobra.Command, _ []string) error {
			broker, err := e.Setting("QUADRILLE_AMQP_URL")
			if err != nil {
				return err
			}
			applied := applied{Applied: e.App.Topology.Name, Marker: e.App.Topology.Marker()}
			if err := rabbit.Apply(c.Context(), broker, e.App.Topology); err != nil {
				return e.App.notApplied(err)
			}
			if prune {
				if applied.Pruned, err = e.prune(c, broker); err != nil {
					return err
				}
			}
			if err := e.Print(applied, func(t *Text) { applied.text(t) }); err != nil {
				return err
			}
			if applied.Pruned != nil && len(applied.Refused) > 0 {
				return Error{Code: ExitProblems, Err: fmt.Errorf("%d objects of earlier versions stay",
					len(applied.Refused)), Next: "repeat later: " + e.App.Command("topology apply --prune")}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&prune, "prune", false, "remove what only earlier versions declared")
	return c
}

// applied is what apply prints.
type applied struct {
	Applied string `json:"applied"`
	Marker  string `json:"marker"`
	*rabbit.Pruned
}

func (a applied) text(t *Text) {
	t.Printf("applied %s (%s)\n", a.Applied, a.Marker)
	if a.Pruned == nil {
		return
	}
	stepLines(t, a.Removed)
	for _, s := range a.Refused {
		t.Printf("  %s: %s\n", s.Object, s.Reason)
	}
	t.Printf("%d removed, %d refused\n", len(a.Removed), len(a.Refused))
}

func (e *Env) prune(c *cobra.Command, broker string) (*rabbit.Pruned, error) {
	manage, err := e.Setting("QUADRILLE_MANAGEMENT_URL")
	if err != nil {
		return nil, err
	}
	pruned, err := rabbit.Prune(c.Context(), manage, broker, e.App.Topology)
	var request *url.Error
	switch {
	case errors.As(err, &request):
		return nil, e.App.away("QUADRILLE_MANAGEMENT_URL", err)
	case err != nil:
		return nil, err
	}
	return &pruned, nil
}
