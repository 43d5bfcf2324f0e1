package demo

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
)

func idempotent() map[string]string { return map[string]string{"Idempotency-Key": events.NewID()} }

// number parses an argument that is a positive whole number.
func number(argument, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("%s: %q is not a positive whole number",
			argument, text)}
	}
	return n, nil
}

// positive refuses a flag that is not a positive number.
func positive(flag string, n int) error {
	if n < 1 {
		return cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("%s %d: must be 1 or more", flag, n)}
	}
	return nil
}

func stock(e *cli.Env) *cobra.Command {
	group := &cobra.Command{Use: "stock", Short: "Receive and list goods"}
	receive := &cobra.Command{
		Use: "receive SKU QUANTITY", Short: "Add goods to the stock",
		Example: "  quadrille stock receive teapot 10", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			quantity, err := number("QUANTITY", args[1])
			if err != nil {
				return err
			}
			var s inventory.Stock
			if err := e.Call(c.Context(), "inventory", "POST", "/stock/"+url.PathEscape(args[0])+"/receipts",
				idempotent(), map[string]any{"quantity": quantity}, &s); err != nil {
				return err
			}
			return e.Print([]inventory.Stock{s}, func(t *cli.Text) { stockTable(t, s) })
		},
	}
	group.AddCommand(receive, stockList(e))
	return group
}

func stockList(e *cli.Env) *cobra.Command {
	var after string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List the stock by article, a page at a time",
		Example: "  quadrille stock list --limit 50",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := positive("--limit", limit); err != nil {
				return err
			}
			q := url.Values{"after": {after}, "limit": {strconv.Itoa(limit)}}
			var page struct {
				Stock []inventory.Stock `json:"stock"`
				Next  string            `json:"next,omitempty"`
			}
			if err := e.Call(c.Context(), "inventory", "GET", "/stock?"+q.Encode(), nil, nil,
				&page); err != nil {
				return err
			}
			noteMore(e, c, page.Next)
			return e.Print(page, func(t *cli.Text) { stockTable(t, page.Stock...) })
		},
	}
	c.Flags().StringVar(&after, "after", "", "only articles that come after this one: the next page")
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	return c
}

func stockTable(t *cli.Text, list ...inventory.Stock) {
	t.Table("SKU\tON HAND\tRESERVED\tCOMMITTED", func(row func(...any)) {
		for _, s := range list {
			row(s.SKU, s.OnHand, s.Reserved, s.Committed)
		}
	})
}
