package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
)

func verify(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "verify [CUSTOMER...]", Short: "Check the chain of hashes of accounts, and all that is " +
			"derived from it",
		Long: "Check the chain of hashes of accounts, and all that is derived from it: snapshots and " +
			"projections.\n" +
			"Without a customer all accounts are checked. The exit code is 5 when one does not fit.",
		Example: "  quadrille accounts verify\n  quadrille accounts verify ada",
		Args:    cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, customers []string) error {
			list, err := verifyAll(c.Context(), e, customers)
			if len(list) == 0 && err != nil {
				return err
			}
			missing, failed := awayOrFailed(err)
			bad := 0
			for _, v := range list {
				if !v.Fits {
					bad++
				}
			}
			if bad > 0 {
				failed = errors.Join(cli.Error{Code: cli.ExitProblems,
					Err: fmt.Errorf("%d of %d accounts do not fit", bad, len(list))}, failed)
			}
			document := map[string]any{"accounts": list, "missing": missing}
			err = e.Print(document, func(t *cli.Text) { printVerified(t, list) })
			return e.Partial(len(list), missing, cmp.Or(err, failed))
		},
	}
}

// awayOrFailed tells a service that cannot be reached from a request that it refused.
func awayOrFailed(err error) (missing []admin.Missing, failed error) {
	if admin.Unreachable(err) {
		return []admin.Missing{admin.NewMissing("payments", err)}, nil
	}
	return []admin.Missing{}, err
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

// verifyAll verifies these customers' accounts, or all. It also returns what was verified when
// others were not; it ends when the service cannot be reached.
func verifyAll(ctx context.Context, e *cli.Env, customers []string) (all []payments.Verified,
	failed error) {
	all = []payments.Verified{}
	for _, customer := range customers {
		var v payments.Verified
		err := e.Call(ctx, "payments", "POST", "/accounts/"+url.PathEscape(customer)+"/verification", nil,
			nil, &v)
		if admin.Unreachable(err) {
			return all, err
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
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
			return all, err
		}
		all, after = append(all, page.Accounts...), page.Next
	}
	return all, failed
}
