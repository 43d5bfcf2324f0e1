package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/check"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/boot"
)

// App returns the command line of the order flow.
func App() cli.App {
	return cli.App{
		Name: "quadrille", Start: "up --detach", List: "order list",
		Ends:      []string{"order.confirmed", "order.cancelled"},
		Topology:  fulfilment.Topology(),
		Catalogue: fulfilment.Catalogue(), Accepted: fulfilment.Accepted(),
		Sample: sample, Check: checkAll, Audit: auditOrders, Settings: checkSettings,
		Commands: func(e *cli.Env) []*cobra.Command {
			return []*cobra.Command{up(e), down(e), demo(e), order(e), accounts(e), stock(e)}
		},
	}
}

// checkSettings refuses a name that is nearly that of a setting, in the environment or in the env
// file.
func checkSettings(names []string) error {
	_, err := boot.Misspelt(append(os.Environ(), names...))
	return err
}

// sample returns a sample event about a new order, because a second event about the same order
// could be a duplicate.
func sample(eventType string) (events.Payload, bool) {
	for _, p := range fulfilment.Samples(events.NewID()) {
		if p.EventType() == eventType {
			return p, true
		}
	}
	return nil, false
}

// checkAll explores all models.
func checkAll() (cli.Checked, error) {
	var names []string
	var reports []check.Report
	for _, m := range Models() {
		r, err := Explore(m)
		if err != nil {
			return cli.Checked{}, fmt.Errorf("model %q: %w", m.Name, err)
		}
		names, reports = append(names, m.Name), append(reports, r)
	}
	return combineReports(names, reports), nil
}

// combineReports combines the reports of several models. A violation that several models share is
// listed once.
func combineReports(names []string, reports []check.Report) cli.Checked {
	all := cli.Checked{Complete: true}
	models := map[string]any{}
	var causes []check.Violation
	in := map[string][]string{} // cause → models
	for i, r := range reports {
		all.States += r.States
		all.TerminalOutcomes += len(r.TerminalOutcomes)
		all.Seconds += r.Seconds
		all.Complete = all.Complete && r.Complete
		all.Lines = append(all.Lines,
			fmt.Sprintf("%-26s %8d states, %2d ways to end, %d violations, %.1f s",
				names[i], r.States, len(r.TerminalOutcomes), len(r.Violations), r.Seconds))
		for _, v := range r.Violations {
			if in[v.What] == nil {
				causes = append(causes, v)
			}
			in[v.What] = append(in[v.What], names[i])
		}
		models[names[i]] = r
	}
	for _, v := range causes {
		all.Lines = append(all.Lines, fmt.Sprintf("violation in %s: %s", strings.Join(in[v.What], "; "),
			v))
	}
	all.Violations, all.Models = len(causes), models
	return all
}

// root returns the folder of the checkout in which the command runs, or else the current folder.
func root() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find folder: %w", err)
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content),
			"module github.com/quadrille-go/quadrille\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return here, nil
		}
	}
}

func up(e *cli.Env) *cobra.Command {
	s := &Stack{Name: DefaultStack, Log: e.Notef, App: e.App}
	var without string
	c := &cobra.Command{
		Use: "up", Short: "Start servers and services on this machine, and stop them on Ctrl-C",
		Long: "Start a private RabbitMQ and PostgreSQL and the four services, apply migrations and the " +
			"topology, and print their addresses.\n" +
			"With --detach it returns when all are ready. If it is called again, it restarts the " +
			"processes that have ended and keeps the others.\n" +
			"The exit code is 7 when some of them are ready and others are not.",
		Example: "  quadrille up\n  quadrille up --detach --replicas 2\n  quadrille up --without " +
			"payments   # to run it under a debugger\n" +
			"  quadrille up --servers --database trips,hotels   # for services of your own",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if s.Root, err = root(); err != nil {
				return err
			}
			for name := range strings.SplitSeq(without, ",") {
				if name != "" {
					s.Without = append(s.Without, name)
				}
			}
			if err := s.validate(); err != nil {
				return cli.Error{Code: cli.ExitUsage, Err: err}
			}
			ctx := c.Context()
			err = s.Up(ctx)
			if err == nil || cli.IsPartial(err) {
				err = errors.Join(e.Print(s.describe(), func(t *cli.Text) { t.Lines("", s.Print()) }), err)
			}
			if s.Detached {
				return err
			}
			if err == nil {
				s.Log("all servers and services are ready; Ctrl-C stops them")
				<-ctx.Done()
			}
			s.Log("stopping")
			return errors.Join(err, s.Down(context.WithoutCancel(ctx)))
		},
	}
	c.Flags().BoolVar(&s.Detached, "detach", false,
		"return when all are ready; the command down stops them")
	c.Flags().IntVar(&s.Replicas, "replicas", 1, "number of replicas of each service")
	c.Flags().StringVar(&without, "without", "", "services to leave out, separated by commas")
	c.Flags().BoolVar(&s.Servers, "servers", false, "start only the servers")
	c.Flags().StringSliceVar(&s.Databases, "database", nil, "`services` of your own, separated by "+
		"commas: create a database and a broker user for each, and write their settings")
	return c
}

// describe returns the output of up for JSON.
func (s *Stack) describe() map[string]any {
	urls := map[string]string{}
	for _, service := range demoServices() {
		if s.runs(service.Name + "-1") {
			urls[service.Name] = s.URL(service.Name, 1)
		}
	}
	return map[string]any{"services": urls, "missing": append([]admin.Missing{}, s.missing...),
		"settings": filepath.Join(s.dir(), "env"), "pids": filepath.Join(s.dir(), "pids")}
}

func down(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop the servers and services that up started", Example: "  quadrille down",
		RunE: func(c *cobra.Command, _ []string) error {
			folder, err := root()
			if err != nil {
				return err
			}
			s := &Stack{Root: folder, Name: DefaultStack, Log: e.Notef, App: e.App}
			if err := s.Down(c.Context()); err != nil {
				return err
			}
			s.Log("stopped")
			return e.Print(map[string]bool{"stopped": true}, func(*cli.Text) {})
		},
	}
}
