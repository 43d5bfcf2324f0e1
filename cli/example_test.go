package cli_test

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// BellRung is the event of the example.
type BellRung struct{ ID string }

func (BellRung) EventType() string { return "bell.rung" }
func (b BellRung) Subject() string { return b.ID }

// A program of one line, cli.Main(app), is an operator's command line for a topology. Run is the
// same for tests.
func ExampleRun() {
	app := cli.App{
		Name: "bells",
		Topology: topology.Topology{Name: "bells", Services: []topology.Service{
			{Name: "bell", Commands: []topology.Command{{Does: "ring",
				Publishes: []string{"bell.rung"}}}},
			{Name: "cat", Reacts: []topology.Reaction{{Handles: "bell.rung", Does: "wake"}}},
		}},
		Catalogue: events.NewCatalogue(BellRung{ID: "1"}),
		Commands: func(env *cli.Env) []*cobra.Command {
			return []*cobra.Command{{Use: "count", Short: "Count the bells",
				RunE: func(*cobra.Command, []string) error {
					return env.Print(map[string]int{"bells": 1},
						func(t *cli.Text) { t.Printf("%d bell\n", 1) })
				}}}
		},
	}
	unset := func(string) (string, bool) { return "", false }
	for _, args := range [][]string{{"count"}, {"topology", "show", "--mermaid"}} {
		code := cli.Run(context.Background(), app, args, os.Stdin, os.Stdout, os.Stdout, unset)
		fmt.Println("exit code", code)
	}
	// Output:
	// 1 bell
	// exit code 0
	// flowchart LR
	//     bell([bell])
	//     cat([cat])
	//     bell -->|bell.rung: wake| cat
	// exit code 0
}
