package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/cli"
)

// The bounds of the demo.
const (
	settleTimeout = 30 * time.Second // for one order to come to its end
	demoReplicas  = 2
	demoStack     = "demo"
	demoBreaker   = 2 * time.Second // how long an open breaker stays so
)

// Outcome is one order of the demo: what was expected of it, and what became of it.
type Outcome struct {
	Name       string    `json:"name"`
	OrderID    string    `json:"order_id"`
	Card       bool      `json:"card"` // it pays
	Expected   Ending    `json:"expected"`
	Got        Ending    `json:"got"`
	AsExpected bool      `json:"as_expected"`
	Trace      cli.Trace `json:"trace"`
}

// Result is all that the demo shows.
type Result struct {
	Orders     []Outcome    `json:"orders"`
	Ledger     Ledger       `json:"ledger"`
	Parked     []cli.Parked `json:"parked"`
	Outage     string       `json:"outage"`  // how that of the payment provider went
	Rebuilt    string       `json:"rebuilt"` // projections, while orders were under way
	Relayed    string       `json:"relayed"` // through which ways out of the outboxes
	Violations []string     `json:"violations"`
	AsExpected int          `json:"as_expected"`
	Seconds    float64      `json:"seconds"` // after the servers were up
}

func demo(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Fulfil and refuse orders on this machine, and account for every one",
		Long: "Start everything with two replicas of each service, take orders through every row of " +
			"the choreography, print each order's story,\n" +
			"then money, stock and shipments. It ends with one line and exits 0 only when every " +
			"order ended as expected.",
		Example: "  quadrille demo\n  quadrille demo -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			folder, err := root()
			if err != nil {
				return err
			}
			s := &Stack{Root: folder, Name: demoStack, Replicas: demoReplicas, Log: logTo(e.ErrOut),
				Settings: []string{"QUADRILLE_BREAKER_OPEN=" + demoBreaker.String()}}
			return runDemo(c.Context(), e, s)
		},
	}
}

func runDemo(ctx context.Context, e *cli.Env, s *Stack) (err error) {
	if err := os.MkdirAll(filepath.Join(s.dir(), "logs"), 0o700); err != nil {
		return fmt.Errorf("make folder of the demo: %w", err)
	}
	// Also after an error or Ctrl-C: nothing is left running.
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
	d := &player{Env: e, stack: s}
	if err := d.run(ctx); err != nil {
		return err
	}
	rebuilt, err := d.rebuildAll(ctx)
	if err != nil {
		return err
	}
	result, err := d.account(ctx)
	if err != nil {
		return err
	}
	result.Rebuilt, result.Relayed = rebuilt, d.relayed
	result.Seconds = time.Since(began).Seconds()
	if err := e.Print(result, result.print); err != nil {
		return err
	}
	if result.AsExpected != len(result.Orders) || len(result.Violations) > 0 {
		return cli.Error{Code: cli.ExitProblems, Err: errors.New("the demo did not end as expected"),
			Next: "the services' logs are in " + filepath.Join(s.dir(), "logs")}
	}
	return nil
}

// account waits for every order to end, collects the stories, and adds everything up.
func (d *player) account(ctx context.Context) (Result, error) {
	r := Result{Orders: []Outcome{}, Violations: []string{}}
	for _, act := range d.scenes {
		got, ok, err := d.await(ctx, act)
		if err != nil {
			return r, err
		}
		history, err := d.Trace(ctx, act.order)
		if err == nil {
			err = cli.MissingError(history.Missing)
		}
		if err != nil {
			return r, err
		}
		if ok {
			r.AsExpected++
		}
		r.Orders = append(r.Orders, Outcome{act.name, act.order, act.card, act.expect, got, ok, history})
	}
	var err error
	if r.Ledger, err = d.ledger(ctx, r.Orders); err != nil {
		return r, err
	}
	if r.Parked, err = d.awaitParked(ctx, len(d.bad)); err != nil {
		return r, err
	}
	r.Violations = append(r.Violations, r.Ledger.violations()...)
	r.Violations = append(r.Violations, d.wrongParked(r.Parked)...)
	outside, err := d.witnessed(ctx, r.Orders)
	if err != nil {
		return r, err
	}
	entries, err := d.ledgersAgree(ctx)
	if err != nil {
		return r, err
	}
	r.Outage = d.sinceOpened()
	r.Violations = append(r.Violations, entries...)
	r.Violations = append(r.Violations, outside...)
	r.Violations = append(r.Violations, unexpected(r.Orders)...)
	return r, nil
}

func (r Result) print(t *cli.Text) {
	for i, o := range r.Orders {
		verdict := "as expected"
		if !o.AsExpected {
			verdict = fmt.Sprintf("NOT as expected: want %s", o.Expected)
		}
		t.Printf("\n%d. %s: %s\n   %s\n", i+1, o.Name, verdict, o.Got)
		o.Trace.Tree(t, "   ")
	}
	t.Printf("\n")
	r.Ledger.print(t)
	t.Printf("\nparked: %d, of what was malformed or forged\n", len(r.Parked))
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
