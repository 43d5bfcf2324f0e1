package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/topology"
)

func topologyCommand(e *Env) *cobra.Command {
	group := &cobra.Command{Use: "topology", Short: "The choreography as data"}
	var mermaid bool
	show := &cobra.Command{
		Use: "show", Short: "Show which service publishes what, and the reactions",
		Example: "  " + e.App.Name + " topology show\n  " + e.App.Name + " topology show --mermaid\n  " +
			e.App.Name + " topology show -o json",
		RunE: func(*cobra.Command, []string) error {
			if mermaid {
				t := NewText(e.Out)
				t.Lines("", e.App.Topology.Mermaid())
				return t.err
			}
			return e.Print(map[string]any{"topology": e.App.Topology, "broker": e.App.Topology.Broker(),
				"marker": e.App.Topology.Marker()}, func(t *Text) { topologyTable(t, e.App.Topology) })
		},
	}
	show.Flags().BoolVar(&mermaid, "mermaid", false, "draw it as a Mermaid flowchart")
	group.AddCommand(show, planCommand(e), applyCommand(e), migrateCommand(e), auditCommand(e),
		lintCommand(e),
		exportCommand(e))
	return group
}

func topologyTable(t *Text, of topology.Topology) {
	t.Table("EVENT\tPUBLISHED BY\tHANDLED BY", func(row func(...any)) {
		for _, eventType := range of.Types() {
			publisher, _ := of.Publisher(eventType)
			var handlers []string
			for _, s := range of.Services {
				for _, r := range s.Reacts {
					if r.Handles == eventType {
						handlers = append(handlers, s.Name+": "+r.Does)
					}
				}
			}
			row(eventType, publisher, strings.Join(handlers, " · "))
		}
	})
}

// Checked is what exploring a choreography has found, all models together.
type Checked struct {
	States           int      `json:"states"`
	TerminalOutcomes int      `json:"terminal_outcomes"`
	Violations       int      `json:"violations"`
	Seconds          float64  `json:"seconds"`
	Complete         bool     `json:"complete"`
	Models           any      `json:"models"` // the reports, one by one
	Lines            []string `json:"-"`      // the same for a person
}

func checkCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Explore every interleaving of the reactions", Example: "  " + e.App.Name +
			" check -o json",
		RunE: func(*cobra.Command, []string) error {
			checked, err := e.App.Check()
			if err != nil {
				return err
			}
			err = e.Print(checked, func(t *Text) {
				t.Lines("", strings.Join(checked.Lines, "\n"))
				t.Printf("%d states, %d ways to end, %d violations, %.1f s\n",
					checked.States, checked.TerminalOutcomes, checked.Violations, checked.Seconds)
			})
			if err == nil && (checked.Violations > 0 || !checked.Complete) {
				err = Error{Code: ExitProblems, Err: fmt.Errorf("%d violations, complete: %t",
					checked.Violations, checked.Complete)}
			}
			return err
		},
	}
}
