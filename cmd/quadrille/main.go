// Command quadrille is the operator's tool of order fulfilment; see quadrille --help.
package main

import (
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/demo"
)

func main() { cli.Main(demo.App()) }
