package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
)

// newOrder is the body of POST /orders.
type newOrder struct {
	Customer        string             `json:"customer"`
	Currency        string             `json:"currency"`
	Lines           []fulfilment.Line  `json:"lines"`
	Address         fulfilment.Address `json:"address"`
	Card            string             `json:"card,omitempty"`
	DeadlineSeconds int64              `json:"deadline_seconds,omitempty"`
}

func order(e *cli.Env) *cobra.Command {
	group := &cobra.Command{Use: "order",
		Short: "Place, show, list and cancel orders, and find stuck ones"}
	group.AddCommand(orderPlace(e), orderShow(e), orderList(e), orderStuck(e), orderCancel(e))
	return group
}

func orderPlace(e *cli.Env) *cobra.Command {
	o := newOrder{Address: fulfilment.Address{Name: "Ada Lovelace", Street: "12 St James's Square",
		City: "London", PostalCode: "SW1Y 4JH"}}
	var lines []string
	var key string
	var wait, sample bool
	c := &cobra.Command{
		Use: "place", Short: "Place an order, with the lines that are given or as a sample",
		Long: "Place an order of a customer. It needs a customer and a line for each article, or " +
			"--sample, which orders one\nteapot for ada. The sample is confirmed if ada has money and a " +
			"teapot is in stock, and else cancelled. The\nparcel goes to a sample address in the country.",
		Example: "  quadrille order place --customer ada --line teapot:1:2500 --line cup:4:700 " +
			"--country GB\n  quadrille order place --sample --wait",
		PreRunE: func(*cobra.Command, []string) error { return o.fill(e, sample, &lines) },
		RunE: func(c *cobra.Command, _ []string) error {
			for _, text := range lines {
				line, err := parseLine(text)
				if err != nil {
					return cli.Error{Code: cli.ExitUsage, Err: err}
				}
				o.Lines = append(o.Lines, line)
			}
			if key == "" {
				key = events.NewID()
			}
			var placed orders.View
			if err := e.Call(c.Context(), "orders", "POST", "/orders",
				map[string]string{"Idempotency-Key": key}, o, &placed); err != nil {
				return err
			}
			if wait {
				if err := awaitEnd(c.Context(), e, &placed); err != nil {
					return err
				}
			}
			if sample && placed.State == orders.Cancelled {
				defer e.Notef("for one that is confirmed, first: %s; %s",
					e.App.Command("accounts deposit "+o.Customer+" 100000"),
					e.App.Command("stock receive "+plenty+" 10"))
			}
			return e.Print(placed, func(t *cli.Text) {
				why := ""
				if placed.Reason != "" {
					why = " (" + placed.Reason + ")"
				}
				t.Printf("%s %s: %d %s%s\n", placed.State, placed.ID, placed.Amount, placed.Currency, why)
			})
		},
	}
	c.Flags().StringVar(&o.Customer, "customer", "", "the customer whose account pays")
	c.Flags().StringVar(&o.Currency, "currency", "EUR", "ISO 4217")
	c.Flags().StringArrayVar(&lines, "line", nil,
		"an article as `sku:quantity:price`, the price of one in minor units, such as teapot:1:2500;\n"+
			"repeat it for each article")
	c.Flags().BoolVar(&sample, "sample", false, "a sample: one teapot for ada, unless said otherwise")
	c.Flags().StringVar(&o.Address.Country, "country", "GB", "ISO 3166-1 alpha-2")
	c.Flags().StringVar(&o.Card, "card", "",
		"a card pays: a token of the payment provider, such as tok_visa")
	c.Flags().Int64Var(&o.DeadlineSeconds, "deadline", 0,
		"seconds within which it must be confirmed (default: that of the service)")
	c.Flags().StringVar(&key, "idempotency-key", "",
		"key of the request; the same key repeats a request (default: a new key)")
	c.Flags().BoolVar(&wait, "wait", false, "wait until it is confirmed or cancelled")
	return c
}

// fill completes a sample order, and refuses another one that lacks something.
func (o *newOrder) fill(e *cli.Env, sample bool, lines *[]string) error {
	switch {
	case sample:
		o.Customer = cmp.Or(o.Customer, rich)
		if len(*lines) == 0 {
			*lines = []string{plenty + ":1:2500"}
		}
		e.Notef("a sample order: %s for %s", strings.Join(*lines, " "), o.Customer)
	case o.Customer == "" || len(*lines) == 0:
		return cli.Error{Code: cli.ExitUsage,
			Err: errors.New("--customer and --line are needed, or --sample for a sample order")}
	}
	return nil
}

// awaitEnd waits until an order has ended.
func awaitEnd(ctx context.Context, e *cli.Env, o *orders.View) error {
	began := time.Now()
	ok, err := poll(ctx, func() (bool, error) {
		err := e.Call(ctx, "orders", "GET", "/orders/"+o.ID, nil, nil, o)
		return o.State != orders.Placed, err
	})
	if err == nil && !ok {
		err = cli.Error{Err: fmt.Errorf("order %s is still %s after %s", o.ID, o.State,
			time.Since(began).Round(time.Second)),
			Next: "see what it waits for: " + e.App.Command("where "+o.ID)}
	}
	return err
}

func parseLine(text string) (fulfilment.Line, error) {
	parts := strings.Split(text, ":")
	if len(parts) == 3 {
		quantity, err1 := strconv.ParseInt(parts[1], 10, 64)
		price, err2 := strconv.ParseInt(parts[2], 10, 64)
		if err1 == nil && err2 == nil {
			return fulfilment.Line{SKU: parts[0], Quantity: quantity, UnitPrice: price}, nil
		}
	}
	return fulfilment.Line{},
		fmt.Errorf("--line %q: want sku:quantity:unit price, such as teapot:2:2500", text)
}

func orderShow(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "show ORDER", Short: "Show an order", Args: cobra.ExactArgs(1),
		Example: "  quadrille order show 0190a0e0-0000-7000-8000-000000000001",
		RunE: func(c *cobra.Command, args []string) error {
			var o orders.View
			if err := e.Call(c.Context(), "orders", "GET", "/orders/"+url.PathEscape(args[0]), nil, nil,
				&o); err != nil {
				return err
			}
			return e.Print(o, func(t *cli.Text) { orderTable(t, o) })
		},
	}
}

func orderList(e *cli.Env) *cobra.Command {
	var customer, state, after string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List orders, newest first, a page at a time",
		Example: "  quadrille order list --customer ada --state cancelled",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := positive("--limit", limit); err != nil {
				return err
			}
			q := url.Values{"customer": {customer}, "state": {state}, "after": {after},
				"limit": {strconv.Itoa(limit)}}
			var page struct {
				Orders []orders.View `json:"orders"`
				Next   string        `json:"next,omitempty"`
			}
			if err := e.Call(c.Context(), "orders", "GET", "/orders?"+q.Encode(), nil, nil,
				&page); err != nil {
				return err
			}
			noteMore(e, c, page.Next)
			return e.Print(page, func(t *cli.Text) { orderTable(t, page.Orders...) })
		},
	}
	c.Flags().StringVar(&customer, "customer", "", "only of this customer")
	c.Flags().StringVar(&state, "state", "", "only in this state: placed, confirmed or cancelled")
	c.Flags().StringVar(&after, "after", "", "only orders placed before this one, for the next page")
	c.Flags().IntVar(&limit, "limit", 50, "maximum number of orders")
	return c
}

// noteMore says on standard error that a list has another page, and which command shows it.
func noteMore(e *cli.Env, c *cobra.Command, next string) {
	if next == "" {
		return
	}
	command := c.CommandPath()
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Name != "after" {
			command += fmt.Sprintf(" --%s %s", f.Name, f.Value)
		}
	})
	e.Notef("there is more; for the next page: %s --after %s", command, next)
}

func orderTable(t *cli.Text, list ...orders.View) {
	t.Table("ORDER\tSTATE\tCUSTOMER\tAMOUNT\tPLACED\tREASON", func(row func(...any)) {
		for _, o := range list {
			amount := fmt.Sprintf("%d %s", o.Amount, o.Currency)
			row(o.ID, o.State, o.Customer, amount, o.PlacedAt, o.Reason)
		}
	})
}

func orderCancel(e *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use: "cancel ORDER", Short: "Cancel an order that is not confirmed", Args: cobra.ExactArgs(1),
		Example: "  quadrille order cancel 0190a0e0-0000-7000-8000-000000000001",
		RunE: func(c *cobra.Command, args []string) error {
			var o orders.View
			if err := e.Call(c.Context(), "orders", "POST", "/orders/"+url.PathEscape(args[0])+
				"/cancellation", nil, nil, &o); err != nil {
				return err
			}
			return e.Print(o, func(t *cli.Text) { orderTable(t, o) })
		},
	}
}
