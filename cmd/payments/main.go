// Command payments is the service of that name; see package internal/payments. It is configured by
// its environment, see internal/boot, and by QUADRILLE_PAYMENTS_PROVIDER_URL: the payment provider,
// without which cards are declined.
package main

import (
	"net/http"
	"os"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/boot"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
)

func main() {
	os.Exit(boot.Main("payments", func(c *boot.Config) (*quadrille.Service, http.Handler, error) {
		return payments.New(c.ServiceWithKeys(), c.Peer("provider", "QUADRILLE_PAYMENTS_PROVIDER_URL"))
	}))
}
