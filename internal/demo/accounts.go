package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/payments"
)

// The bounds of the wait for a projection.
const (
	rebuildPoll    = 100 * time.Millisecond
	rebuildTimeout = time.Hour
)

func accounts(e *cli.Env) *cobra.Command {
	group := &cobra.Command{Use: "accounts", Aliases: []string{"account"},
		Short: "Show, verify and fill accounts"}
	printAccount := func(a payments.Account) error {
		return e.Print(a, func(t *cli.Text) {
			closed := ""
			if a.Closed {
				closed = ", and is closed"
			}
			t.Printf("%s has %d %s%s\n", a.Customer, a.Balance, a.Currency, closed)
		})
	}
	var currency string
	deposit := &cobra.Command{
		Use: "deposit CUSTOMER AMOUNT",
		Short: "Deposit money, and open the account if necessary; AMOUNT " +
			"is in minor units",
		Example: "  quadrille accounts deposit ada 100000", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			amount, err := number("AMOUNT", args[1])
			if err != nil {
				return err
			}
			path := "/accounts/" + url.PathEscape(args[0])
			if err := e.Call(c.Context(), "payments", "PUT", path, nil, map[string]any{"currency": currency},
				nil); err != nil {
				return err
			}
			var a payments.Account
			if err := e.Call(c.Context(), "payments", "POST", path+"/deposits", idempotent(),
				map[string]any{"amount": amount, "currency": currency}, &a); err != nil {
				return err
			}
			return printAccount(a)
		},
	}
	deposit.Flags().StringVar(&currency, "currency", "EUR", "ISO 4217")
	show := &cobra.Command{
		Use: "show CUSTOMER", Short: "Show an account", Example: "  quadrille accounts show ada",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var a payments.Account
			if err := e.Call(c.Context(), "payments", "GET", "/accounts/"+url.PathEscape(args[0]), nil, nil,
				&a); err != nil {
				return err
			}
			return printAccount(a)
		},
	}
	group.AddCommand(deposit, show, history(e), verify(e), rebuild(e))
	return group
}

func history(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "history CUSTOMER", Short: "List the stored events of an account",
		Example: "  quadrille accounts history ada", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all := []payments.Event{}
			for after := ""; ; {
				var page struct {
					Events []payments.Event `json:"events"`
					Next   string           `json:"next"`
				}
				path := "/accounts/" + url.PathEscape(args[0]) + "/history?limit=1000&after=" + after
				if err := e.Call(c.Context(), "payments", "GET", path, nil, nil, &page); err != nil {
					return err
				}
				all = append(all, page.Events...)
				if after = page.Next; after == "" {
					break
				}
			}
			return e.Print(all, func(t *cli.Text) {
				t.Table("VERSION\tTIME\tEVENT\tDATA", func(row func(...any)) {
					for _, h := range all {
						row(h.Version, h.Time.Local().Format(time.DateTime), h.Type, fieldsOf(h.Data))
					}
				})
			})
		},
	}
}

// fieldsOf lists the fields of an event in one line, without the customer, who is the same for all
// events.
func fieldsOf(data json.RawMessage) string {
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if decoder.Decode(&fields) != nil {
		return string(data)
	}
	var list []string
	for _, name := range []string{"amount", "currency", "order_id"} {
		if v, ok := fields[name]; ok {
			list = append(list, fmt.Sprint(v))
		}
	}
	return strings.Join(list, " ")
}

func verify(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "verify [CUSTOMER...]", Short: "Verify the chain of hashes of accounts, and the data " +
			"derived from it",
		Long: "Verify the chain of hashes of accounts, and the data derived from it: snapshots and " +
			"projections.\n" +
			"Without a customer all accounts are verified. The exit code is 5 if one does not match.",
		Example: "  quadrille accounts verify\n  quadrille accounts verify ada",
		Args:    cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, customers []string) error {
			list, err := verifyAll(c.Context(), e, customers)
			if err != nil {
				return err
			}
			bad := 0
			for _, v := range list {
				if !v.Fits {
					bad++
				}
			}
			err = e.Print(list, func(t *cli.Text) { printVerified(t, list) })
			if err == nil && bad > 0 {
				err = cli.Error{Code: cli.ExitProblems,
					Err: fmt.Errorf("%d of %d accounts do not match their events", bad,
						len(list))}
			}
			return err
		},
	}
}

func printVerified(t *cli.Text, list []payments.Verified) {
	for _, v := range list {
		switch {
		case v.Misfit != nil:
			t.Printf("%s: event %d does not fit: %s\n", v.Customer, v.Misfit.Version, v.Misfit.Why)
		case !v.Fits:
			t.Printf("%s: %d events fit, but %s\n", v.Customer, v.Events, strings.Join(v.Disagree, "; "))
		default:
			t.Printf("%s: %d events fit\n", v.Customer, v.Events)
		}
	}
}

// verifyAll verifies the accounts of these customers, or all accounts if there are none.
func verifyAll(ctx context.Context, e *cli.Env, customers []string) (all []payments.Verified,
	err error) {
	all = []payments.Verified{}
	for _, customer := range customers {
		var v payments.Verified
		if err := e.Call(ctx, "payments", "POST", "/accounts/"+url.PathEscape(customer)+"/verification",
			nil, nil, &v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	for after, more := "", len(customers) == 0; more; more = after != "" {
		var page struct {
			Accounts []payments.Verified `json:"accounts"`
			Next     string              `json:"next"`
		}
		if err := e.Call(ctx, "payments", "GET", "/verifications?after="+url.QueryEscape(after), nil, nil,
			&page); err != nil {
			return nil, err
		}
		all, after = append(all, page.Accounts...), page.Next
	}
	return all, nil
}

func rebuild(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "rebuild [PROJECTION...]", Short: "Fill projections again from the events, while the " +
			"current ones are read",
		Example:   "  quadrille accounts rebuild\n  quadrille accounts rebuild account_statement",
		ValidArgs: projectionNames(), Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, names []string) error {
			for _, name := range names {
				if !slices.Contains(projectionNames(), name) {
					return cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("there is no projection %.64q", name),
						Next: "the projections are " + strings.Join(projectionNames(), " and ")}
				}
			}
			if len(names) == 0 {
				names = projectionNames()
			}
			ctx, cancel := context.WithTimeout(c.Context(), rebuildTimeout)
			defer cancel()
			done := []eventstore.Progress{}
			for _, name := range names {
				p, err := Rebuild(ctx, e, name, func(p eventstore.Progress) {
					e.Notef("%s: %d of about %d events", p.Name, p.Done, p.Of)
				})
				if err != nil {
					return err
				}
				done = append(done, p)
			}
			return e.Print(done, func(t *cli.Text) {
				for _, p := range done {
					t.Printf("%s: rebuilt from %d events\n", p.Name, p.Done)
				}
			})
		},
	}
}

func projectionNames() (names []string) {
	for _, p := range payments.Projections() {
		names = append(names, p.Name)
	}
	return names
}

// Rebuild requests the rebuild of a projection and waits until readers see it. It calls report with
// the progress.
func Rebuild(ctx context.Context, e *cli.Env, name string,
	report func(eventstore.Progress)) (p eventstore.Progress, err error) {
	var list []eventstore.Progress
	if err := e.Call(ctx, "payments", "POST", "/admin/projections/"+url.PathEscape(name)+"/rebuild",
		nil, nil, &list); err != nil {
		return p, err
	}
	wanted, _ := newest(list, name)
	tick := time.NewTicker(rebuildPoll)
	defer tick.Stop()
	for reported := int64(-1); ; {
		p, ok := newest(list, name)
		switch {
		case !ok || p.Generation > wanted.Generation:
			return p, fmt.Errorf("another rebuild of %s has begun: wait for it", name)
		case p.Live:
			return p, nil
		case p.Done != reported:
			report(p)
			reported = p.Done
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return p, fmt.Errorf("stopped waiting; the service continues to rebuild %s: %w", name, ctx.Err())
		}
		list = nil
		if err := e.Call(ctx, "payments", "GET", "/admin/projections", nil, nil, &list); err != nil {
			return p, err
		}
	}
}

// newest returns the latest generation of a projection.
func newest(list []eventstore.Progress, name string) (found eventstore.Progress, ok bool) {
	for _, p := range list {
		if p.Name == name && p.Generation > found.Generation {
			found, ok = p, true
		}
	}
	return found, ok
}
