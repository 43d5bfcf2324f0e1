package cli

import (
	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

func breakersCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "breakers", Short: "Show the circuit breakers around outside calls",
		Long: "Show the circuit breakers around outside calls. Each replica learns by itself: the " +
			"state is the worst of the replicas,\nand the numbers are their sums.",
		Example: "  " + e.App.Name + " breakers -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			all, missing := e.Client().Breakers(c.Context())
			document := map[string]any{"breakers": all, "missing": missing}
			return e.partial(missing, e.Print(document, func(t *Text) { printBreakers(t, all) }))
		},
	}
}

func printBreakers(t *Text, all []admin.Breaker) {
	t.Table("SERVICE\tBREAKER\tSTATE\tSINCE\tFAILURES\tOPENED\tREFUSED", func(row func(...any)) {
		for _, b := range all {
			var since any = b.Since
			if b.Since.IsZero() {
				since = "the start"
			}
			row(b.Service, b.Name, b.State, since, b.Failures, b.Opened, b.Refused)
		}
	})
}
