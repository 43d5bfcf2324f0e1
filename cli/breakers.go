package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// Breaker is a circuit breaker of one replica of a service.
type Breaker struct {
	Service string `json:"service"`
	admin.Breaker
}

func (e *Env) breakers() *cobra.Command {
	return &cobra.Command{
		Use: "breakers", Short: "Show the circuit breakers around outside calls",
		Long: "Show the circuit breakers around outside calls, of that replica of each service " +
			"which its address leads to:\neach replica learns by itself.",
		Example: "  " + e.App.Name + " breakers -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			all, missing := collect(e, func(service string) (list []Breaker, err error) {
				err = e.Call(c.Context(), service, "GET", "/admin/breakers", nil, nil, &list)
				for i := range list {
					list[i].Service = service
				}
				return list, err
			})
			document := map[string]any{"breakers": all, "missing": missing}
			return e.partial(missing, e.Print(document, func(t *Text) { printBreakers(t, all) }))
		},
	}
}

func printBreakers(t *Text, all []Breaker) {
	t.Table("SERVICE\tBREAKER\tSTATE\tSINCE\tFAILURES\tOPENED\tREFUSED", func(row func(...any)) {
		for _, b := range all {
			since := "the start"
			if !b.Since.IsZero() {
				since = b.Since.Format(time.RFC3339)
			}
			row(b.Service, b.Name, b.State, since, b.Failures, b.Opened, b.Refused)
		}
	})
}
