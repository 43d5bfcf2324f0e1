// Command shipping is the service of that name; see package internal/shipping. It is configured by
// its environment, see internal/boot, and by QUADRILLE_SHIPPING_COUNTRIES ("DE,FR,US"): the
// countries that the carrier serves, and QUADRILLE_SHIPPING_CARRIER_URL: where it is, without which
// parcels go without being booked.
package main

import (
	"net/http"
	"os"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/boot"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
)

func main() {
	os.Exit(boot.Main("shipping", func(c *boot.Config) (*quadrille.Service, http.Handler, error) {
		countries := c.Countries("QUADRILLE_SHIPPING_COUNTRIES", shipping.Countries)
		return shipping.New(c.Service(), c.Peer("carrier", "QUADRILLE_SHIPPING_CARRIER_URL"),
			countries)
	}))
}
