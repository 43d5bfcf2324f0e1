package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
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
			all, missing, err := readHistory(c.Context(), e, args[0])
			if err != nil {
				return err
			}
			document := map[string]any{"events": all, "missing": missing}
			return e.Partial(len(all), missing, e.Print(document, func(t *cli.Text) {
				t.Table("VERSION\tTIME\tEVENT\tDATA", func(row func(...any)) {
					for _, h := range all {
						row(h.Version, h.Time, h.Type, fieldsOf(h.Data))
					}
				})
			}))
		},
	}
}

// readHistory reads all pages. When the service stops answering in between, the pages before are
// returned, and the service is missing.
func readHistory(ctx context.Context, e *cli.Env, customer string) (all []payments.Event,
	missing []admin.Missing, err error) {
	all, missing = []payments.Event{}, []admin.Missing{}
	for after := ""; ; {
		var page struct {
			Events []payments.Event `json:"events"`
			Next   string           `json:"next"`
		}
		path := "/accounts/" + url.PathEscape(customer) + "/history?limit=1000&after=" + after
		err := e.Call(ctx, "payments", "GET", path, nil, nil, &page)
		if err != nil && len(all) > 0 {
			return all, append(missing, admin.NewMissing("payments", err)), nil
		}
		if err != nil {
			return nil, nil, err
		}
		all = append(all, page.Events...)
		if after = page.Next; after == "" {
			return all, missing, nil
		}
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
