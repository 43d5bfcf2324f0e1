// Command inventory is the service of that name; see package internal/inventory. It is configured
// by its environment; see internal/boot.
package main

import (
	"net/http"
	"os"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/boot"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
)

func main() {
	os.Exit(boot.Main("inventory", func(c *boot.Config) (*quadrille.Service, http.Handler, error) {
		return inventory.New(c.ServiceWithKeys())
	}))
}
