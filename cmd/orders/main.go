// Command orders is the service of that name; see package internal/orders. It is configured by its
// environment, see internal/boot, and by QUADRILLE_ORDER_DEADLINE (15m): by when an order must be
// confirmed.
package main

import (
	"net/http"
	"os"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/boot"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
)

func main() {
	os.Exit(boot.Main("orders", func(c *boot.Config) (*quadrille.Service, http.Handler, error) {
		within := c.Duration("QUADRILLE_ORDER_DEADLINE")
		return orders.New(c.ServiceWithKeys(), within)
	}))
}
