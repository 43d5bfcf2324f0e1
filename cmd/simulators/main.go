// Command simulators plays the payment provider and the carrier; see package internal/simulator. It
// is configured by QUADRILLE_SIMULATORS_LISTEN (127.0.0.1:7709).
package main

import (
	"os"

	"github.com/quadrille-go/quadrille/internal/boot"
)

func main() { os.Exit(boot.Simulators()) }
