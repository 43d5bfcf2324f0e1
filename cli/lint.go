package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/internal/lint"
)

func lintCommand(e *Env) *cobra.Command {
	var explain bool
	c := &cobra.Command{
		Use: "lint", Short: "Look for what is suspicious in it, such as a step that nothing undoes",
		Long: "Look for what is suspicious in the topology, without a broker. --rules explains all " +
			"rules. A finding that is meant\n" +
			"so is accepted in the program, with its reason. The exit code is 5 if another one is found.",
		Example: "  " + e.App.Name + " topology lint\n  " + e.App.Name + " topology lint --rules",
		RunE: func(*cobra.Command, []string) error {
			if explain {
				return e.Print(lint.Rules(), func(t *Text) { ruleLines(t) })
			}
			found, err := lint.Check(e.App.Topology, e.App.Accepted)
			if err != nil {
				return err
			}
			open := 0
			for _, f := range found {
				if f.Accepted == "" {
					open++
				}
			}
			if err := e.Print(found, func(t *Text) {
				findingLines(t, found)
				t.Printf("%d rules, %d findings, %d accepted\n", len(lint.Rules()), len(found),
					len(found)-open)
			}); err != nil {
				return err
			}
			if open > 0 {
				return Error{Code: ExitProblems, Err: fmt.Errorf("%d findings in %s", open,
					e.App.Topology.Name), Next: e.App.Command("topology lint --rules")}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&explain, "rules", false, "explain each rule instead")
	return c
}

func findingLines(t *Text, found []lint.Finding) {
	do := map[string]string{}
	for _, r := range lint.Rules() {
		do[r.Name] = r.Do
	}
	for _, f := range found {
		t.Printf("%s %s: %s\n", f.Rule, f.Object, f.Found)
		switch {
		case f.Accepted != "":
			t.Printf("    accepted: %s\n", f.Accepted)
		case do[f.Rule] != "":
			t.Printf("    %s\n", do[f.Rule])
		}
	}
}

func ruleLines(t *Text) {
	for _, r := range lint.Rules() {
		t.Printf("%s: %s.\n    %s\n    %s\n", r.Name, r.Finds, r.Why, r.Do)
	}
}
