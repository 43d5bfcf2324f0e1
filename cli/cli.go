// Package cli is the command line for anybody's choreography: publish test events, trace a subject
// through the services, show and apply the topology, look at what is parked, explore the reactions.
//
// A command of one's own gets an Env: settings, printing, and the client of the services.
//
// It promises data on standard output and everything else on standard error, JSON with -o json, and
// exit codes that say what went wrong. It acts through the broker and the services' own endpoints,
// never on their databases.
package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// App is a choreography as the command line sees it.
type App struct {
	Name      string // of the program
	Topology  topology.Topology
	Catalogue events.Catalogue
	// Sample returns a fresh valid payload, for publish without data; nil: the catalogue's own.
	Sample func(eventType string) (events.Payload, bool)
	// Start are the words of the command that starts the services, such as "up --detach", for hints.
	// List are those of the one that lists subjects, such as orders. Empty: the hints name none.
	Start, List string
	// Ends are the types of the events that end a subject, such as an order. A deadline that is due
	// later has no effect then, which where says.
	Ends []string
	// Accepted are the findings of topology lint that are meant so: for each rule with its object,
	// such as "event-unhandled order.archived", the reason.
	Accepted map[string]string
	// Check explores the choreography; nil: there is no command check.
	Check func() (Checked, error)
	// Audit adds to found what contradicts the invariants between the services of the choreography,
	// and what it has compared, to Checked. What may be under way it looks up again after grace. nil:
	// the command audit compares events only.
	Audit func(ctx context.Context, e *Env, found *admin.Audit, grace time.Duration) error
	// Settings refuses names of settings, of the file that is read, that nobody knows; it looks at the
	// environment itself. nil: all are taken.
	Settings func(names []string) error
	// Commands are those of the choreography, in addition to the ones of this package.
	Commands func(*Env) []*cobra.Command

	typed string // how the program was started, when that has a slash
}

// Command returns a command line of this program for a hint, with the program as it was started.
func (a App) Command(words string) string { return cmp.Or(a.typed, a.Name) + " " + words }

// Main runs the program and exits.
func Main(app App) {
	if strings.Contains(os.Args[0], "/") {
		app.typed = os.Args[0] // it is in no folder of PATH, so its name alone would not start it
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Run(ctx, app, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv)
	stop()
	os.Exit(code)
}

// Run runs one command line and returns its exit code.
func Run(ctx context.Context, app App, args []string, in io.Reader, out, errOut io.Writer,
	lookup func(string) (string, bool)) int {
	env := &Env{App: app, In: in, Out: out, ErrOut: errOut}
	env.settings.lookup = lookup
	root := rootCommand(env)
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	printError(errOut, app.Name, app.explain(advise(c, err)))
	return codeOf(err)
}

func rootCommand(e *Env) *cobra.Command {
	root := &cobra.Command{
		Use: e.App.Name, Short: "The " + e.App.Topology.Name + " choreography on the command line",
		Long: "The " + e.App.Topology.Name + " choreography on the command line.\n\nExit codes:\n  " +
			strings.Join(exitCodes(), "\n  "),
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if e.Output != "table" && e.Output != "json" {
				return usage(fmt.Errorf("-o %q: want table or json", e.Output))
			}
			file, err := e.settings.all()
			if err != nil && e.settings.path != "" {
				return err // also when the environment has all that the command needs
			}
			if e.App.Settings == nil {
				return nil
			}
			if err := e.App.Settings(slices.Sorted(maps.Keys(file))); err != nil {
				return Error{Code: ExitUsage, Err: err, Next: "rename it or unset it"}
			}
			return nil
		},
	}
	root.PersistentFlags().StringVarP(&e.Output, "output", "o", "table", "how to print: table or json")
	root.PersistentFlags().StringVar(&e.settings.path, "env-file", "",
		"settings, in addition to the environment's "+
			"own (default: .quadrille/env here or above)")
	root.PersistentFlags().BoolVarP(&e.quiet, "quiet", "q", false,
		"no progress and no hints on standard error, only errors")
	root.SetFlagErrorFunc(wrongFlag)
	root.SetHelpCommand(helpCommand(e))
	root.AddCommand(publishCommand(e), traceCommand(e), whereCommand(e), whyCommand(e),
		tailCommand(e), topCommand(e), topologyCommand(e), parkedCommand(e), auditAllCommand(e),
		replayCommand(e), relayCommand(e), breakersCommand(e), versionCommand(e))
	if e.App.Check != nil {
		root.AddCommand(checkCommand(e))
	}
	if e.App.Commands != nil {
		root.AddCommand(e.App.Commands(e)...)
	}
	root.SetIn(e.In)
	root.SetOut(e.Out) // before the commands of completion, which keep it
	root.SetErr(e.ErrOut)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	describeCompletion(e.App, root)
	strict(root)
	e.App.named(root)
	return root
}

// printError writes the text of an error, whose words may be those of a service, a broker or a
// database. Lines after the first are indented, so that none of them looks like another one of the
// program.
func printError(out io.Writer, name, text string) {
	first, more, several := strings.Cut(strings.TrimSpace(text), "\n")
	t := NewText(out)
	t.Printf("%s: %s\n", name, strings.TrimSuffix(first, "\r"))
	if several {
		t.Lines("  ", strings.TrimPrefix(more, "  "))
	}
}

func versionCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Example: "  " + e.App.Name +
			" version -o json",
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": "(devel)", "topology": e.App.Topology.Marker()}
			if info, ok := debug.ReadBuildInfo(); ok {
				v["go"] = info.GoVersion
				if info.Main.Version != "" {
					v["version"] = info.Main.Version
				}
			}
			return e.Print(v, func(t *Text) {
				t.Printf("%s %s (%s, %s)\n", e.App.Name, v["version"], v["go"], v["topology"])
			})
		},
	}
}
