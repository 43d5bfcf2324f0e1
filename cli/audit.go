package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

func auditCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "audit", Short: "Compare the broker with it, policies included",
		Long: "Compare the broker with the topology through its management API, policies included. " +
			"What is missing or in conflict is an\n" +
			"error, with the command that repairs it; what is extra is a warning.",
		Example: "  " + e.App.Name + " topology audit -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			manage, broker, err := e.brokerSettings()
			if err != nil {
				return err
			}
			found, err := rabbit.Audit(c.Context(), manage, broker, e.App.Topology)
			if err != nil {
				return e.App.away("QUADRILLE_MANAGEMENT_URL", err)
			}
			found = append([]rabbit.Finding{}, found...)
			if err := e.Print(found, func(t *Text) { auditTable(t, found) }); err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(f rabbit.Finding) bool { return f.Kind != rabbit.Extra }) {
				return Error{Code: ExitProblems, Err: fmt.Errorf("the broker is not as %s wants it",
					e.App.Topology.Name)}
			}
			return nil
		},
	}
}

func auditTable(t *Text, found []rabbit.Finding) {
	if len(found) == 0 {
		t.Printf("the broker is as the topology wants it\n")
		return
	}
	t.Table("", func(row func(...any)) {
		for _, f := range found {
			row(f.Kind, f.Object, f.Detail, f.Remedy)
		}
	})
}
