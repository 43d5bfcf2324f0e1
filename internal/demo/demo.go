package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
)

// The bounds of the demo.
const (
	settleTimeout = 30 * time.Second // for one order to end
	pollEvery     = 50 * time.Millisecond
	demoReplicas  = 2
	demoStack     = "demo"
	demoBreaker   = 2 * time.Second // how long an open breaker stays open
)

// Outcome is one order of the demo with its expected and its actual end.
type Outcome struct {
	Name       string      `json:"name"`
	OrderID    string      `json:"order_id"`
	Card       bool        `json:"card"` // a card pays
	Expected   Ending      `json:"expected"`
	Got        Ending      `json:"got"`
	AsExpected bool        `json:"as_expected"`
	Trace      admin.Trace `json:"trace"`
}

// Result is the output of the demo.
type Result struct {
	Orders     []Outcome      `json:"orders"`
	Ledger     Ledger         `json:"ledger"`
	Parked     []admin.Parked `json:"parked"`
	Outage     string         `json:"outage"`  // of the payment provider, summarised
	Rebuilt    string         `json:"rebuilt"` // projections, while orders were in progress
	Relayed    string         `json:"relayed"` // how the relays were switched
	Violations []string       `json:"violations"`
	AsExpected int            `json:"as_expected"`
	Seconds    float64        `json:"seconds"` // since all services were ready
}

func demo(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Run orders through every outcome on this machine, and check each of them",
		Long: "Start everything with two replicas of each service, place orders that use every event " +
			"of the topology, and print the trace of each order,\n" +
			"then money, stock and shipments. The last line is a summary; the exit code is 0 only " +
			"if every order ended as expected.",
		Example: "  quadrille demo\n  quadrille demo -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			folder, err := root()
			if err != nil {
				return err
			}
			s := &Stack{Root: folder, Name: demoStack, Replicas: demoReplicas, Log: e.Notef,
				App:      e.App,
				Settings: []string{"QUADRILLE_BREAKER_OPEN=" + demoBreaker.String()}}
			return runDemo(c.Context(), e, s)
		},
	}
}

func runDemo(ctx context.Context, e *cli.Env, s *Stack) (err error) {
	// This also runs after an error or Ctrl-C, so that no process is left running.
	defer func() { err = errors.Join(err, s.Down(context.WithoutCancel(ctx))) }()
	if err := s.Reset(ctx); err != nil {
		return err
	}
	if err := s.Up(ctx); err != nil {
		return err
	}
	began := time.Now()
	e.Fixed = map[string]string{}
	for _, pair := range s.settings() {
		e.Fixed[pair[0]] = pair[1]
	}
	d := &player{Env: e, stack: s, simulators: simulatorClient(s.SimulatorsURL())}
	if err := d.run(ctx); err != nil {
		return err
	}
	rebuilt, err := d.rebuildAll(ctx)
	if err != nil {
		return err
	}
	result, err := d.collect(ctx)
	if err != nil {
		return err
	}
	result.Rebuilt, result.Relayed = rebuilt, d.relays
	result.Seconds = time.Since(began).Seconds()
	if err := e.Print(result, result.print); err != nil {
		return err
	}
	if result.AsExpected != len(result.Orders) || len(result.Violations) > 0 {
		return cli.Error{Code: cli.ExitProblems, Err: errors.New("the demo did not end as expected"),
			Next: "see the logs of the services in " + filepath.Join(s.dir(), "logs")}
	}
	return nil
}

// collect waits until every order has ended, and collects the traces, the ledger and the
// violations.
func (d *player) collect(ctx context.Context) (Result, error) {
	r := Result{Orders: []Outcome{}, Violations: []string{}}
	for _, o := range d.orders {
		got, ok, err := d.await(ctx, o)
		if err != nil {
			return r, err
		}
		trace := d.Client().Trace(ctx, o.order)
		if err := firstOf(trace.Missing); err != nil {
			return r, err
		}
		if ok {
			r.AsExpected++
		}
		r.Orders = append(r.Orders, Outcome{o.name, o.order, o.card, o.expect, got, ok, trace})
	}
	var err error
	if r.Ledger, err = d.ledger(ctx, r.Orders); err != nil {
		return r, err
	}
	if r.Parked, err = d.awaitParked(ctx, len(d.bad)); err != nil {
		return r, err
	}
	r.Violations = append(r.Violations, r.Ledger.violations()...)
	r.Violations = append(r.Violations, d.parkedViolations(r.Parked)...)
	journalViolations, err := d.checkJournal(ctx, r.Orders)
	if err != nil {
		return r, err
	}
	accountViolations, err := d.checkAccounts(ctx)
	if err != nil {
		return r, err
	}
	contradictions, err := auditViolations(ctx, d.Env)
	if err != nil {
		return r, err
	}
	r.Outage = d.outageSummary()
	r.Violations = append(r.Violations, contradictions...)
	r.Violations = append(r.Violations, accountViolations...)
	r.Violations = append(r.Violations, journalViolations...)
	r.Violations = append(r.Violations, missingSteps(r.Orders)...)
	return r, nil
}

func (r Result) print(t *cli.Text) {
	for i, o := range r.Orders {
		verdict := "as expected"
		if !o.AsExpected {
			verdict = fmt.Sprintf("NOT as expected: want %s", o.Expected)
		}
		t.Printf("\n%d. %s: %s\n   %s\n", i+1, o.Name, verdict, o.Got)
		t.Trace("   ", o.Trace)
	}
	t.Printf("\n")
	r.Ledger.print(t)
	t.Printf("\nparked, which means that a person must look at them: the %d malformed or forged "+
		"events of this demo\n", len(r.Parked))
	for _, p := range r.Parked {
		reason, _, _ := strings.Cut(p.Reason, "\n")
		t.Printf("  %-10s %-16s %s\n", p.Service, p.Type, reason)
	}
	t.Printf("\n%s\n%s\n", r.Outage, r.Rebuilt)
	t.Lines("", r.Relayed)
	for _, v := range r.Violations {
		t.Printf("VIOLATION: %s\n", v)
	}
	t.Printf("\ndemo: %d orders, %d as expected, %d violations\n", len(r.Orders), r.AsExpected,
		len(r.Violations))
}
